"""What config.json says of each layer follows the layers of a stack; blocks that predict further tokens stay behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import open_text, random_model, values_of

from streamconv import sources
from streamconv.errors import BadInput
from streamconv.merging.config_edit import restack
from streamconv.merging.layout import lay_out

#: the layers 0, 1, 1, 2 of a model of three
ORDER = (0, 1, 1, 2)
_L, _F, _S = "linear_attention", "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("num_attention_heads_per_layer", [2, 4, 6], [2, 4, 4, 6]),
        ("num_key_value_heads_per_layer", [1, 2, 3], [1, 2, 2, 3]),
        ("moe_intermediate_size", [32, 64, 96], [32, 64, 64, 96]),
        ("attn_type_list", [0, 1, 0], [0, 1, 1, 0]),
        ("block_configs", [{"a": 1}, {"a": 2}, {"a": 3}], [{"a": 1}, {"a": 2}, {"a": 2}, {"a": 3}]),
        ("hybrid_override_pattern", "M-*", "M--*"),
        ("indexer_types", ["full", "shared", "full"], ["full", "shared", "shared", "full"]),
        ("swiglu_limits", [None, 0, 7.0], [None, 0, 0, 7.0]),
        ("rope_theta", [1e6, 1e4, 1e5], [1e6, 1e4, 1e4, 1e5]),
        ("sliding_window_layout", [0, 1, 0], [0, 1, 1, 0]),
        ("linear_attn_config", {"kda_layers": [1, 3], "full_attn_layers": [2]},
         {"kda_layers": [1, 4], "full_attn_layers": [2, 3]}),
        ("sparse_attention_config", {"sparse_attention_freq": [0, 1, 0]}, {"sparse_attention_freq": [0, 1, 1, 0]}),
        ("per_layer_config", {"1": {"head_dim": 64}}, {"1": {"head_dim": 64}, "2": {"head_dim": 64}}),
        ("moe_layers_enum", "1,2", "1,2,3"),
        ("mlp_only_layers", [1], [1, 2]),
        ("compress_ratios", [0, 4, 128, 7], [0, 4, 4, 128, 7]),
        ("layer_types", [_S, _F, _F, _S], [_S, _F, _F, _F, _S]),
        ("num_dense_layers", 1, 1),
        ("num_dense_layers", 2, 3),
        ("moe_layer_start_index", 2, 3),
        # what only looks like a list or a text of layers
        ("block_type", "abc", "abc"),
        ("rope_parameters", {"mrope_section": [2, 1, 1]}, {"mrope_section": [2, 1, 1]}),
        ("num_key_value_heads", 3, 3),
        ("rope_theta", 1e6, 1e6),
    ],
)  # fmt: skip
def test_what_is_said_of_each_layer_follows_the_layers(key: str, before: Any, after: Any) -> None:
    donor = {"num_hidden_layers": 3, key: before}
    section = {"num_hidden_layers": 3, key: dict(before) if isinstance(before, dict) else before}
    restack(section, [(donor, layer) for layer in ORDER], [])
    assert section == {"num_hidden_layers": 4, key: after}


@pytest.mark.parametrize(
    ("stated", "after"),
    [
        ({"model_type": "qwen3_next"}, [_L, _L, _L, _F, _F]),
        ({"model_type": "qwen3_next", "full_attention_interval": 2}, [_L, _F, _L, _F, _F]),
        ({"model_type": "gemma4_text"}, [_S, _S, _S, _F, _F]),
        ({"model_type": "gemma3n_text"}, [_S, _S, _S, _S, _S]),
    ],
)
def test_kinds_that_only_code_knows_are_said_where_layers_move(stated: dict[str, Any], after: list[str]) -> None:
    donor = {"num_hidden_layers": 4, **stated}
    section = dict(donor)
    restack(section, [(donor, layer) for layer in (0, 1, 2, 3, 3)], [])
    assert section["layer_types"] == after


def test_dense_layers_above_experts_are_refused_by_the_key_that_cannot_say_so() -> None:
    donor = {"num_hidden_layers": 3, "num_dense_layers": 1}
    with pytest.raises(BadInput, match="num_dense_layers can only say"):
        restack(dict(donor), [(donor, layer) for layer in (0, 1, 0)], [])


def predicting(folder: Path, seed: int, places: tuple[str, ...]) -> dict[str, Any]:
    """A model of two layers, and what predicts a further token at ``places``."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (16, 8), "model.norm.weight": (8,)}
    shapes |= {f"model.layers.{i}.mlp.up_proj.weight": (12, 8) for i in range(2)}
    shapes |= {f"{place}.weight": (8, 8) for place in places}
    config = {"architectures": ["X"], "model_type": "x", "num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    random_model(folder, seed, shapes, config)
    return dict(sources.open_checkpoint(folder).tensors)


STACK = """merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [0, 2]}]
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            ("model.layers.2.eh_proj", "model.layers.2.mlp.up_proj"),
            ("model.layers.4.eh_proj", "model.layers.4.mlp.up_proj"),
        ),
        (("mtp.fc", "mtp.layers.0.mlp.up_proj"), ("mtp.fc", "mtp.layers.0.mlp.up_proj")),
    ],
)
def test_what_predicts_further_tokens_stays_behind_the_stack(
    before: tuple[str, ...], after: tuple[str, ...], tmp_path: Path
) -> None:
    predicting(tmp_path / "a", 0, before)
    other = predicting(tmp_path / "b", 1, before)
    merged = open_text(tmp_path, STACK)
    assert {name for name in merged.tensors if ("layers.0" not in name and "layers" in name) or "mtp" in name} == {
        *(f"model.layers.{i}.mlp.up_proj.weight" for i in range(1, 4)),
        *(f"{name}.weight" for name in after),
    }
    assert merged.config["num_hidden_layers"] == 4
    for mine, theirs in zip(after, before, strict=True):
        np.testing.assert_array_equal(values_of(merged.tensors[f"{mine}.weight"]), values_of(other[f"{theirs}.weight"]))


@pytest.mark.parametrize("prefix", ["transformer.decoder_layer", "model.transformer_encoder", "model.layers"])
def test_layers_go_by_many_names(prefix: str) -> None:
    layout = lay_out([f"{prefix}.{i}.ffn.weight" for i in range(3)], {})
    assert layout.counts == {"default": 3}
