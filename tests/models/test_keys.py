"""Hyper-parameter keys: the GGUF type of each is what loaders insist on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models import FAMILIES, keys
from streamconv.models.config import Config, UnlessNull, normalise
from streamconv.sources.checkpoint import Checkpoint

CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2, "max_position_embeddings": 256, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "is_causal": False, "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-6,
    "num_local_experts": 8, "num_experts_per_tok": 3, "head_dim": 16, "vocab_size": 100, "sliding_window": 32,
    "final_logit_softcapping": 30.0,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "attention_factor": 1, "beta_fast": 32,
        "beta_slow": 1, "extrapolation_factor": 1}  # fmt: skip
U32, F32, STRING, FLAG = "UINT32", "FLOAT32", "STRING", "BOOL"
BASE = {
    "block_count": (U32, 2), "context_length": (U32, 256), "embedding_length": (U32, 64), "feed_forward_length": (U32, 96),
    "attention.head_count": (U32, 4), "attention.head_count_kv": (U32, 2), "attention.causal": (FLAG, False),
    "rope.scaling.type": (STRING, "yarn"), "rope.scaling.factor": (F32, 4.0),
    "rope.scaling.original_context_length": (U32, 64), "rope.scaling.yarn_ext_factor": (F32, 1.0),
    "rope.scaling.yarn_attn_factor": (F32, 1.0), "rope.scaling.yarn_beta_fast": (F32, 32.0),
    "rope.scaling.yarn_beta_slow": (F32, 1.0), "rope.dimension_sections": ("ARRAY of INT32", [16, 24, 24, 0]),
    "rope.freq_base": (F32, 10000.0), "rope.freq_base_swa": (F32, 500.0), "attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "attention.layer_norm_epsilon": (F32, 1e-6), "expert_count": (U32, 8), "expert_used_count": (U32, 3),
    "attention.key_length": (U32, 16), "attention.value_length": (U32, 16),
}  # fmt: skip


def written(key: keys.Key, rope: dict[str, Any] | None = None) -> dict[str, tuple[str, Any]]:
    """What ``key`` writes of ``CONFIG``: name without the architecture -> type and value."""
    metadata = Metadata()
    key(metadata, "x", Config(CONFIG, rope or {}, {"rope_theta": 500}))
    return {
        name.removeprefix("x."): (f"ARRAY of {v.elem}" if v.elem else v.type, v.value) for name, v in metadata.items()
    }


def test_the_common_keys_have_the_types_names_and_order_that_loaders_look_for() -> None:
    rope = {**YARN, "rope_theta": 10000, "mrope_section": [16, 24, 24]}
    found = [pair for key in keys.BASE for pair in written(key, rope).items()]
    assert found == [*BASE.items(), ("general.file_type", (U32, 0))]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.vocab_size, {"vocab_size": (U32, 100)}),
        (keys.rope_dimension_count, {"rope.dimension_count": (U32, 16)}),
        (keys.sliding_window, {"attention.sliding_window": (U32, 32)}),
        (keys.soft_caps, {"attn_logit_softcapping": (F32, 1e9), "final_logit_softcapping": (F32, 30.0)}),
        (keys.final_soft_cap, {"final_logit_softcapping": (F32, 30.0)}),
    ],
)
def test_the_keys_of_some_families_have_the_types_that_loaders_look_for(
    key: keys.Key, expected: dict[str, Any]
) -> None:
    assert written(key) == expected


def test_linear_and_longrope_scaling_are_named() -> None:
    assert written(keys.rope_scaling, {"rope_type": "linear", "factor": 2}) == {
        "rope.scaling.type": (STRING, "linear"), "rope.scaling.factor": (F32, 2.0),
    }  # fmt: skip
    assert written(keys.rope_scaling, {"rope_type": "longrope"}) == {"rope.scaling.type": (STRING, "longrope")}
    assert written(keys.rope_scaling, {"rope_type": "dynamic"}) == {}


@pytest.mark.parametrize(
    ("root", "scaling", "expected"),
    [({}, 64, 64), ({"original_max_position_embeddings": 32}, None, 32),
     ({"original_max_position_embeddings": 32}, 64, 64)],
)  # fmt: skip
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_a_scaling_that_states_its_original_context_is_believed_before_the_root(
    spelling: str, root: dict[str, Any], scaling: int | None, expected: int
) -> None:
    stated = {**YARN, "original_max_position_embeddings": scaling}
    config = normalise({**CONFIG, **root, spelling: stated}, {"": {"rope_parameters": {"rope_theta": 10000.0}}})
    metadata = Metadata()
    keys.rope_scaling(metadata, "x", config)
    assert metadata.get("x.rope.scaling.original_context_length") == expected


def test_messages_name_the_file_that_was_read() -> None:
    source = Checkpoint(Path("m"), {}, {}, (), config_file="params.json")
    for key, values, rope in (
        (keys.rope_scaling, {}, {"rope_type": "linear"}),
        (keys.rope_scaling, {}, {"rope_type": "odd"}),
        (keys.expert_counts, {"scoring_func": "odd"}, {}),
    ):
        with pytest.raises(BadInput, match=r"m/params\.json: "):
            key(Metadata(), "x", Config(values, rope, {}, source))


@pytest.mark.parametrize(
    ("default", "expected"), [(UnlessNull(128), 96), (128, None), (lambda c: c.hidden // c.n_heads, 96)]
)
def test_a_null_for_the_width_of_heads_is_read_as_the_class_does(default: object, expected: int | None) -> None:
    stated = {"model_type": "a", "hidden_size": 1536, "num_attention_heads": 16}
    classes = {"a": {"head_dim": default}}
    found = normalise({**stated, "head_dim": None}, classes)
    assert (found.get("head_dim"), found.head_dim) == (expected, 96)
    assert normalise(stated, classes).get("head_dim") == (96 if callable(default) else 128)


@pytest.mark.parametrize(
    "name", ["Ernie4_5ForCausalLM", "InternLM3ForCausalLM", "IQuestCoderForCausalLM", "SeedOssForCausalLM"]
)
def test_classes_that_take_null_for_an_equal_share_are_known(name: str) -> None:
    family = FAMILIES[name]
    kind = next(kind for kind, defaults in family.classes.items() if isinstance(defaults.get("head_dim"), UnlessNull))
    stated = {"model_type": kind, "hidden_size": 1536, "num_attention_heads": 16, "head_dim": None}
    assert normalise(stated, family.classes).get("head_dim") == 96
