"""Draft models: they have the tokenizer of the model they help, whose folder is given, and say what they read of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
import toys
from small_models import DRAFT, DRAFTED, draft

import streamconv
from streamconv import models
from streamconv.conversion import Options, prepare
from streamconv.errors import BadInput, UsageError
from streamconv.sources.checkpoint import Checkpoint

TOYS = toys.stored()


@pytest.fixture
def target(data: Path, tmp_path: Path) -> Path:
    """A model with layers, a tokenizer and no weights."""
    folder = tmp_path / "target"
    shutil.copytree(data / "checkpoints" / "mistral-spm" / "hf", folder, ignore=lambda *_: ["model.safetensors"])
    for path in folder.iterdir():
        path.chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12}))
    return folder


def converted(source: Path, out: Path, target: Path, **options: Any) -> gguf_reader.Gguf:
    streamconv.convert(source, out, target_model=str(target), threads=1, **options)
    return gguf_reader.read(out)


@pytest.mark.parametrize("type_", ["f16", "q4_k_m"])
def test_a_draft_has_the_tokenizer_of_the_model_it_helps_and_says_what_it_reads_of_it(
    data: Path, target: Path, tmp_path: Path, type_: str
) -> None:
    found = converted(draft(tmp_path / "draft"), tmp_path / "x.gguf", target, type=type_)
    streamconv.convert(
        data / "checkpoints" / "mistral-spm" / "hf", tmp_path / "target.gguf", vocab_only=True, threads=1
    )
    other = gguf_reader.read(tmp_path / "target.gguf")
    assert {k: v for k, v in found.keys.items() if k.startswith("tokenizer.")} == {
        k: v for k, v in other.keys.items() if k.startswith("tokenizer.")
    }
    assert found.keys["general.architecture"][1] == "eagle3"
    assert list(found.keys["eagle3.target_layers"][1][1]) == [2, 6, 9]
    assert found.keys["eagle3.target_hidden_size"][1] == 64
    assert [found.keys[f"eagle3.norm_before_{what}"][1] for what in ("residual", "fc")] == [False, False]
    assert found.tensors["d2t"].type == "I64"
    assert np.frombuffer(found.tensors["d2t"].data, "<i8").tolist() == list(DRAFTED)
    assert type_ != "f16" or list(found.tensors)[-1] == "d2t"


def test_a_draft_under_the_name_of_the_whole_class_is_one(target: Path, tmp_path: Path) -> None:
    source = draft(tmp_path / "draft", architectures=["LlamaForCausalLM"], eagle_aux_hidden_state_layer_ids=[1, 5, 8])
    found = converted(source, tmp_path / "x.gguf", target, type="f16")
    assert list(found.keys["eagle3.target_layers"][1][1]) == [1, 5, 8]


def test_a_speculator_has_the_keys_of_its_layer_apart(target: Path, tmp_path: Path) -> None:
    kept = {"architectures", "draft_vocab_size"}
    layer = {**{k: v for k, v in DRAFT.items() if k not in kept}, "rope_theta": 77.0}
    source = draft(tmp_path / "draft")
    config = {k: v for k, v in DRAFT.items() if k in kept}
    config |= {"architectures": ["Eagle3Speculator"], "model_type": "speculator", "transformer_layer_config": layer}
    (source / "config.json").write_text(json.dumps(config))
    found = converted(source, tmp_path / "x.gguf", target, type="f16")
    assert found.keys["eagle3.rope.freq_base"][1] == 77.0
    assert found.keys["eagle3.block_count"][1] == 1


@pytest.mark.parametrize("ids", [[*DRAFTED[:-1], 516], [*DRAFTED[:-1], -1], [*DRAFTED[:-1], 3]])
def test_tokens_that_the_model_it_helps_has_not_or_twice_are_refused(
    target: Path, tmp_path: Path, ids: list[int]
) -> None:
    with pytest.raises(BadInput, match="'d2t' does not name 8 different tokens of the 516"):
        converted(draft(tmp_path / "draft", ids), tmp_path / "x.gguf", target, type="f16")
    assert not (tmp_path / "x.gguf").exists()


def test_fewer_tokens_than_stated_are_refused(target: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'d2t' has shape \[7\], which does not fit config.json: there are 8 tokens"):
        streamconv.plan(draft(tmp_path / "draft", DRAFTED[:-1]), tmp_path / "x.gguf", target_model=str(target))


def test_a_draft_without_the_model_it_helps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="drafts for another model") as caught:
        streamconv.plan(draft(tmp_path / "draft"), tmp_path / "x.gguf")
    assert "--target-model-dir" in caught.value.hint


def test_a_model_that_helps_no_other_takes_nothing_of_one(data: Path, target: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--target-model-dir has no effect on 'llama'"):
        streamconv.plan(data / "checkpoints" / "mistral-spm" / "hf", tmp_path / "x.gguf", target_model=str(target))


def change_tokenizer(target: Path) -> None:
    config = json.loads((target / "tokenizer_config.json").read_text())
    (target / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "another"}))


def change_layers(target: Path) -> None:
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 20}))


@pytest.mark.parametrize("change", [change_tokenizer, change_layers])
def test_what_is_read_of_the_model_it_helps_counts_in_the_fingerprint(
    target: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    source, options = draft(tmp_path / "draft"), Options(type="f16", target_model=str(target))
    before = prepare(source, tmp_path / "x.gguf", options).plan.fingerprint
    assert prepare(source, tmp_path / "x.gguf", options).plan.fingerprint == before
    change(target)
    assert prepare(source, tmp_path / "x.gguf", options).plan.fingerprint != before


def test_nothing_is_written_over_the_model_it_helps(target: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json is the input itself"):
        streamconv.plan(
            draft(tmp_path / "draft"), tmp_path / "x.gguf", target_model=str(target), report=target / "config.json"
        )


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(streamconv.errors.StreamconvError, match="empty"):
        streamconv.plan(draft(tmp_path / "draft"), tmp_path / "x.gguf", target_model=str(tmp_path / "empty"))


def dflash(
    change: Callable[[dict[str, Any]], Any], tensors: Callable[[dict[str, list[int]]], Any] = lambda t: None
) -> Any:
    return toys.built(TOYS["dflash"], change, tensors)


def said(model: Any) -> dict[str, Any]:
    return {key.removeprefix("dflash."): value for key, value in toys.keys(model).items()}


def test_what_the_section_on_drafting_says_goes_before_the_root() -> None:
    section = {
        "mask_token_id": 1, "target_layer_ids": [4], "block_size": 3, "conv_kernel_size": 3, "conv_group_size": 16,
        "selector_rank": 32, "selector_top_k": 5, "use_swa": True, "swa_window_size": 24, "attention_value_scale": 0.5,
        "causal": True, "output_multiplier": 2.0, "final_logit_softcapping": 0.0,
    }  # fmt: skip
    found = said(
        dflash(
            lambda c: c.update(dflash_config=section, block_size=9, input_embedding_scale=8.0, output_multiplier=1.0)
        )
    )
    assert [found[key] for key in ("block_size", "conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")] == [
        3, 3, 16, 32, 5,
    ]  # fmt: skip
    assert [found[key] for key in ("logit_scale", "embedding_scale", "attention.value_scale")] == [2.0, 8.0, 0.5]
    assert (found["attention.causal"], found["attention.sliding_window"]) == (True, 24)
    assert found["attention.sliding_window_pattern"] == [True, True]
    assert found["target_layers"] == [5]
    assert "final_logit_softcapping" not in found


def test_layers_have_the_kinds_that_their_class_gives_them_where_none_are_stated() -> None:
    found = said(dflash(lambda c: (c.pop("layer_types"), c.update(max_window_layers=1))))
    assert found["attention.sliding_window_pattern"] == [False, True]
    assert "attention.sliding_window" not in said(dflash(lambda c: c.update(use_sliding_window=False)))


def test_convolutions_a_selector_and_sinks_have_their_places() -> None:
    def more(tensors: dict[str, list[int]]) -> None:
        tensors |= {
            "layers.0.attention_conv.base_kernel": [2, 3, 64], "layers.0.mlp_conv.kernel_projection.weight": [24, 64],
            "layers.0.self_attn.sinks": [4], "candidate_selector.predecessor_codebook": [512, 32],
            "candidate_selector.hidden_projection.weight": [32, 64], "embed_tokens.weight": [512, 64],
        }  # fmt: skip

    assert set(dflash(lambda c: None, more).tensors) - set(dflash(lambda c: None).tensors) == {
        "blk.0.attn_conv_base", "blk.0.ffn_conv_proj.weight", "blk.0.attn_sinks.weight", "selector_predecessor.weight",
        "selector_hidden.weight", "token_embd.weight",
    }  # fmt: skip
    left = dflash(lambda c: c.update(has_embed_tokens=False), more).left_out
    assert left["embed_tokens.weight"] == "config.json says that there is none"


def test_rotated_pairs_that_lie_side_by_side_are_taken_apart() -> None:
    plain, apart = dflash(lambda c: None), dflash(lambda c: c.update(rope_is_neox_style=False))
    for name, n_rows in (("blk.1.attn_q.weight", 64), ("blk.1.attn_q_norm.weight", 1)):
        before, after = (
            m.tensors[name].read(0, n_rows).reshape(-1, 16, 64 if n_rows > 1 else 1) for m in (plain, apart)
        )
        assert np.array_equal(after[:, :8], before[:, ::2])
        assert np.array_equal(after[:, 8:], before[:, 1::2])


@pytest.mark.parametrize("layers", ["1", [1.5], [None]])
def test_layers_that_are_no_numbers_are_refused(layers: Any) -> None:
    with pytest.raises(BadInput, match="not a list of numbers"):
        dflash(lambda c: c["dflash_config"].update(target_layer_ids=layers))


def test_keys_on_drafting_that_are_not_known_are_told() -> None:
    (told,) = (w for w in dflash(lambda c: c["dflash_config"].update(other=1)).warnings if "'dflash_config' is {" in w)
    assert told.endswith("some of its keys are not known to runtimes")


def dspark(
    n: int = 8, change: Callable[[dict[str, Any]], Any] = lambda c: None, tensors: dict[str, list[int]] | None = None
) -> Any:
    def more(shapes: dict[str, list[int]]) -> None:
        shapes |= {"d2t": [n], "t2d": [512], "lm_head.weight": [n, 64]} if tensors is None else tensors

    return toys.built(TOYS["dspark"], lambda c: (c.update(draft_vocab_size=n), change(c)), more)


def test_a_draft_of_some_tokens_has_its_own_head() -> None:
    assert {"d2t", "output.weight"} <= set(dspark().tensors)
    whole = dspark(512, tensors={})
    assert "output.weight" not in whole.tensors
    assert whole.left_out["lm_head.weight"] == "the head of the model that it helps is used"
    with pytest.raises(BadInput, match="no tensor 'd2t'"):
        dspark(tensors={})
    with pytest.raises(BadInput, match="more than the 512"):
        dspark(600)


def test_layers_counted_from_the_embedding_on_are_taken_as_they_are() -> None:
    found = said(
        dspark(change=lambda c: (c.pop("dflash_config"), c.update(aux_hidden_state_layer_ids=[2, 4], mask_token_id=9)))
    )
    assert found["target_layers"] == [2, 4]
    assert (found["sample_from_anchor"], said(dspark())["sample_from_anchor"]) == (False, True)


def test_another_head_than_that_of_pairs_is_refused() -> None:
    with pytest.raises(BadInput, match="markov_head_type"):
        dspark(change=lambda c: c.update(markov_head_type="gated"))


def gemma4(
    change: Callable[[dict[str, Any]], Any] = lambda c: None,
    tensors: Callable[[dict[str, list[int]]], Any] = lambda t: None,
) -> Any:
    """A draft for Gemma 4 made of that for Qwen 3."""

    def stated(c: dict[str, Any]) -> None:
        for key in ("rope_theta", "head_dim", "hidden_act", "dflash_config"):
            del c[key]
        c.update(
            architectures=["Gemma4DSparkModel"], model_type="gemma4_dspark", attention_k_eq_v=True, global_head_dim=32,
            num_global_key_value_heads=1, layer_types=["full_attention"] * 2, mask_token_id=511, target_layer_ids=[1, 3],
        )  # fmt: skip
        change(c)

    def stored(shapes: dict[str, list[int]]) -> None:
        sizes = {"q_proj": [128, 64], "k_proj": [32, 64], "o_proj": [64, 128], "q_norm": [32], "k_norm": [32]}
        for name in [*shapes]:
            part, layer = name.split(".")[-2], ".".join(name.split(".")[:2])
            if part == "v_proj":
                del shapes[name]
            elif part == "input_layernorm":
                more = ("pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight", "layer_scalar")
                shapes |= {f"{layer}.{each}": [1] if each == "layer_scalar" else [64] for each in more}
            elif part in sizes:
                shapes[name] = sizes[part]
        shapes |= {name.replace("head.proj", "proj"): shapes.pop(name) for name in [*shapes] if "confidence" in name}
        tensors(shapes)

    return toys.built(TOYS["dspark"], stated, stored)


def test_a_draft_for_gemma_4_has_its_norms_and_heads() -> None:
    model = gemma4()
    found = {key.removeprefix("dflash."): value for key, value in toys.keys(model).items()}
    expected = {
        "attention.head_count_kv": 1, "attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32,
        "embedding_scale": 8.0, "attention.scale": 1.0, "hidden_activation": "gelu_pytorch_tanh", "sample_from_anchor": True,
        "has_confidence_head": True, "target_layers": [2, 4], "rope.freq_base": 1000000.0,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    of_block = {"post_attention_norm.weight", "ffn_norm.weight", "post_ffw_norm.weight", "layer_output_scale.weight"}
    assert {f"blk.1.{name}" for name in of_block} | {"output.weight", "conf_proj.weight"} <= set(model.tensors)
    assert np.array_equal(model.tensors["rope_freqs.weight"].read(0, 1).reshape(-1), np.float32([1] * 4 + [1e30] * 12))
    plain = gemma4(lambda c: c.update(rope_parameters={"rope_type": "default", "rope_theta": 1e4}))
    assert "rope_freqs.weight" not in plain.tensors


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"attention_k_eq_v": False}, "attention_k_eq_v"), ({"layer_types": None}, "layer_types"),
        ({"hidden_activation": "silu"}, "hidden_activation"), ({"draft_vocab_size": 8}, "draft_vocab_size"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"), ({"mask_token_id": None}, "mask_token_id"),
        ({"target_layer_ids": []}, "target_layer_ids"), ({"markov_head_type": "gated"}, "markov_head_type"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type"),
    ],
)  # fmt: skip
def test_what_no_runtime_drafts_for_gemma_4_is_refused(stated: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        gemma4(lambda c: c.update(stated))


def test_a_draft_for_gemma_4_needs_a_head_or_a_tie() -> None:
    with pytest.raises(BadInput, match=r"no 'lm_head\.weight'"):
        gemma4(tensors=lambda t: t.pop("lm_head.weight"))
    tied = gemma4(lambda c: c.update(tie_word_embeddings=True), lambda t: t.pop("lm_head.weight"))
    assert "output.weight" not in tied.tensors


def deepseek4(folder: Path, names: Sequence[str]) -> Checkpoint:
    """A DeepSeek V4 with tensors ``names``."""
    stated = {**TOYS["deepseek4-dspark"]["config"], "architectures": ["DeepseekV4ForCausalLM"]}
    return Checkpoint(folder, {name: toys.Named(name, (64, 64)) for name in names}, stated, ())


def test_dspark_writes_the_draft_in_a_deepseek_v4_and_nothing_of_the_model(tmp_path: Path) -> None:
    assert models.dspark_of(deepseek4(tmp_path, ["mtp.0.main_proj.weight"])).arch == "dflash"
    model = toys.built(TOYS["deepseek4-dspark"])
    assert not {"token_embd.weight", "blk.2.attn_norm.weight"} & set(model.tensors)
    assert {*model.left_out.values()} == {"of the model that it helps"}


def test_dspark_is_refused_where_it_has_no_effect(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no DSpark draft: there is no tensor 'mtp\.0\.main_proj\.weight'"):
        models.dspark_of(deepseek4(tmp_path, ["mtp.0.enorm.weight"]))
    source = data / "checkpoints" / "mistral-spm" / "hf"
    for more, why in (({}, "but on DeepSeek V4 only"), ({"mmproj": True}, "no effect on a projector")):
        with pytest.raises(UsageError, match=why):
            prepare(source, tmp_path / "x.gguf", Options(dspark=True, **more))
