"""Whole conversions: every key and every tensor byte as llama.cpp's converter writes them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import DATA, Tensors, changed, gemma2, read_safetensors, renamed, write_safetensors

import streamconv
from streamconv.errors import BadInput, InputMissing

SMALL = ["mistral-spm", "qwen2-yarn"]
#: every other copy, in two types only: what else they have in common with the others is compared there
BRIEF = sorted({p.name for p in (DATA / "checkpoints").iterdir()} - set(SMALL))
REFERENCE = [
    "llama2-spm", "llama3-bpe", "llama-linear-sharded", "mistral-spm", "qwen2-yarn", "qwen3-tied", "gemma1",
    "gemma3-text", "gemma3-mm",
]  # fmt: skip
TYPES = ["f32", "f16", "bf16", "q8_0", "auto"]


def convert(source: Path, out: Path, **settings: Any) -> gguf_reader.Gguf:
    assert streamconv.convert(source, out, threads=1, **settings) == [out]
    return gguf_reader.read(out)


def settings_of(case: Path) -> dict[str, Any]:
    pre = json.loads((case / "case.json").read_text())["pretokenizer_override"]
    return {"pre": pre} if pre else {}


def assert_as_recorded(case: Path, dump: str, out: Path, **settings: Any) -> None:
    recorded = json.loads((case / f"{dump}.dump.json").read_text())
    found = convert(case / "hf", out, **settings_of(case), **settings)
    told = gguf_reader.differences(found, recorded)
    assert not told, "\n".join(told)


@pytest.fixture
def mistral(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("case", SMALL)
def test_keys_and_tensors_are_those_of_the_reference(data: Path, tmp_path: Path, case: str, type_name: str) -> None:
    assert_as_recorded(data / "checkpoints" / case, type_name, tmp_path / "x.gguf", type=type_name)


@pytest.mark.parametrize("type_name", ["f32", "q8_0"])
@pytest.mark.parametrize("case", BRIEF)
def test_a_case_of_every_family_is_that_of_the_reference(data: Path, tmp_path: Path, case: str, type_name: str) -> None:
    assert_as_recorded(data / "checkpoints" / case, type_name, tmp_path / "x.gguf", type=type_name)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("case", REFERENCE)
def test_every_family_converts_as_the_reference_does(
    reference: Path, tmp_path: Path, case: str, type_name: str
) -> None:
    assert_as_recorded(reference / "golden" / "gguf" / case, type_name, tmp_path / "x.gguf", type=type_name)


@pytest.mark.parametrize("type_name", ["f32", "f16", "q8_0"])
def test_the_text_model_among_several_modules_converts_as_if_alone(
    reference: Path, tmp_path: Path, type_name: str
) -> None:
    case = reference / "golden" / "gguf" / "minicpmv26"
    alone = tmp_path / "model"  # the recorded file is that of a folder of this name
    shutil.copytree(case / "hf", alone)
    found = convert(alone, tmp_path / "x.gguf", type=type_name, **settings_of(case))
    assert gguf_reader.differences(found, json.loads((case / f"{type_name}.dump.json").read_text())) == []


@pytest.mark.slow
def test_a_real_vocabulary_converts_without_weights(reference: Path, tmp_path: Path) -> None:
    assert_as_recorded(reference / "golden" / "gguf" / "qwen2-realvocab", "vocab", tmp_path / "x.gguf", vocab_only=True)


@pytest.mark.parametrize("type_name", ["f16", "f32"])
def test_the_vision_projector_is_that_of_the_reference(reference: Path, tmp_path: Path, type_name: str) -> None:
    case = reference / "golden" / "gguf" / "gemma3-mm"
    assert_as_recorded(case, f"mmproj-{type_name}", tmp_path / "x.gguf", type=type_name, mmproj=True)


@pytest.mark.parametrize(
    ("prefix", "settings"),
    [
        ("split-t6", {"type": "f16", "split_max_tensors": 6}),
        ("split-s150K", {"type": "f32", "split_max_bytes": 150_000}),
    ],
)
def test_shards_are_cut_where_the_reference_cuts(
    reference: Path, tmp_path: Path, prefix: str, settings: dict[str, Any]
) -> None:
    case = reference / "golden" / "gguf" / "llama2-spm"
    paths = streamconv.convert(case / "hf", tmp_path / f"{prefix}.gguf", **settings)
    dumps = sorted(case.glob(f"{prefix}-*.dump.json"))
    assert [p.name for p in paths] == [d.name.replace(".dump.json", ".gguf") for d in dumps]
    for path, dump in zip(paths, dumps, strict=True):
        found, wanted = gguf_reader.read(path), json.loads(dump.read_text())
        assert gguf_reader.differences(found, wanted) == []


@pytest.mark.parametrize(("beyond", "n_first"), [(0, 3), (-1, 2), (1, 3)])
def test_a_shard_may_be_as_large_as_the_limit(mistral: Path, tmp_path: Path, beyond: int, n_first: int) -> None:
    tensors = convert(mistral, tmp_path / "x.gguf", type="f32").tensors
    limit = sum(len(t.data) for t in list(tensors.values())[:3]) + beyond
    first, *_ = streamconv.convert(mistral, tmp_path / "y.gguf", type="f32", split_max_bytes=limit)
    assert list(gguf_reader.read(first).tensors) == list(tensors)[:n_first]


def test_shards_together_hold_what_one_file_holds(mistral: Path, tmp_path: Path) -> None:
    whole = convert(mistral, tmp_path / "x.gguf", type="q8_0")
    paths = streamconv.convert(mistral, tmp_path / "x.gguf", type="q8_0", split_max_tensors=7, update=True)
    assert not (tmp_path / "x.gguf").exists()  # it was the same output in another form
    assert [p.name for p in paths] == [f"x-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    shards = [gguf_reader.read(p) for p in paths]
    joined = {name: t.data for s in shards for name, t in s.tensors.items()}
    assert joined == {name: t.data for name, t in whole.tensors.items()}
    assert [s.keys["split.no"][1] for s in shards] == [0, 1, 2]
    opened = streamconv.open(paths[0])
    assert list(opened) == list(whole.tensors)


def test_a_tensor_without_a_place_is_named(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf", lambda t: {**t, "model.layers.0.mystery.weight": t["lm_head.weight"]})
    with pytest.raises(BadInput, match=r"model\.layers\.0\.mystery\.weight.* has no place in architecture 'llama'"):
        streamconv.convert(source, tmp_path / "x.gguf")


def test_a_misshapen_tensor_is_named_with_both_shapes(mistral: Path, tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        dtype, words = tensors["model.layers.0.self_attn.k_proj.weight"]
        tensors["model.layers.0.self_attn.k_proj.weight"] = dtype, words[:-16]

    source = changed(mistral, tmp_path / "hf", shorten)
    with pytest.raises(BadInput, match=r"k_proj\.weight.* has shape \[16, 64\], config\.json asks for \[32, 64\]"):
        streamconv.convert(source, tmp_path / "x.gguf")


def test_a_block_beyond_the_configuration_is_refused(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf", config=lambda c: c.update(num_hidden_layers=1))
    with pytest.raises(BadInput, match=r"blk\.1\..* lies beyond the 1 layers"):
        streamconv.convert(source, tmp_path / "x.gguf")


def test_an_unknown_architecture_is_told_what_is_supported(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "a", config=lambda c: c.update(architectures=["Zzzz"]))
    with pytest.raises(BadInput, match="architecture 'Zzzz' is not supported") as caught:
        streamconv.convert(source, tmp_path / "x.gguf")
    assert caught.value.hint == "`streamconv families` lists what is supported."


def test_the_outer_name_decides_which_text_model_is_inside(mistral: Path, tmp_path: Path) -> None:
    def inside(name: str) -> Any:
        def change(config: dict[str, Any]) -> None:
            config["text_config"] = {"model_type": "mistral"}
            config["architectures"] = [name]

        return change

    known = changed(mistral, tmp_path / "llava", config=inside("LlavaForConditionalGeneration"))
    assert streamconv.plan(known, tmp_path / "x.gguf")["architecture"] == "llama"
    other = changed(mistral, tmp_path / "paligemma", config=inside("PaliGemmaForConditionalGeneration"))
    with pytest.raises(BadInput, match="'PaliGemmaForConditionalGeneration' is not supported"):
        streamconv.plan(other, tmp_path / "x.gguf")


def test_a_misspelt_architecture_is_told_the_nearest(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "a", config=lambda c: c.update(architectures=["MistralForCausalLm"]))
    with pytest.raises(BadInput) as caught:
        streamconv.convert(source, tmp_path / "x.gguf")
    assert caught.value.hint.startswith("Did you mean MistralForCausalLM")
    assert "`streamconv families`" in caught.value.hint


def test_more_tokens_than_embedding_rows_are_refused(mistral: Path, tmp_path: Path) -> None:
    def cut(tensors: Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][0], tensors[name][1][:500]

    source = changed(mistral, tmp_path / "hf", cut)
    with pytest.raises(BadInput, match="the embedding has 500 rows, the tokenizer 516 tokens"):
        streamconv.convert(source, tmp_path / "x.gguf")


def test_a_checkpoint_without_a_tokenizer_is_refused(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf")
    for name in ("tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        (source / name).unlink()
    with pytest.raises(InputMissing, match="tokenizer"):
        streamconv.convert(source, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    "spelling",
    [
        lambda n: n.removeprefix("model."),
        lambda n: n.replace("model.", "model.language_model.", 1) if n.startswith("model.") else n,
        lambda n: f"language_model.{n}",
    ],
    ids=["without a prefix", "nested in model", "nested outside"],
)
def test_other_spellings_of_tensor_names_give_the_same_file(mistral: Path, tmp_path: Path, spelling: Any) -> None:
    plain = convert(mistral, tmp_path / "plain.gguf", type="q8_0")
    source = changed(mistral, tmp_path / "hf", renamed(spelling))
    other = convert(source, tmp_path / "other.gguf", type="q8_0")
    assert {n: t.data for n, t in other.tensors.items()} == {n: t.data for n, t in plain.tensors.items()}


def test_tensors_of_other_modules_and_buffers_are_left_out(mistral: Path, tmp_path: Path) -> None:
    extra = {
        "vision_tower.x.weight": ("F32", np.ones((2, 32), "<f4")),
        "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", np.ones(8, "<f4")),
    }
    source = changed(mistral, tmp_path / "hf", lambda t: {**t, **extra})
    planned = streamconv.plan(source, tmp_path / "x.gguf")
    assert set(planned["left_out"]) == set(extra)
    plain = convert(mistral, tmp_path / "plain.gguf", type="f16")
    assert convert(source, tmp_path / "x.gguf", type="f16").tensors == plain.tensors


def test_gemma_2_gets_its_caps_its_window_and_its_norms(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "hf")
    found = convert(source, tmp_path / "x.gguf", type="f32")
    expected = {
        "general.architecture": "gemma2", "gemma2.context_length": 256, "gemma2.embedding_length": 64,
        "gemma2.block_count": 2, "gemma2.feed_forward_length": 96, "gemma2.attention.head_count": 4,
        "gemma2.attention.head_count_kv": 2, "gemma2.attention.key_length": 16, "gemma2.attention.value_length": 16,
        "gemma2.attn_logit_softcapping": 50.0, "gemma2.final_logit_softcapping": 30.0,
        "gemma2.attention.sliding_window": 64,
    }  # fmt: skip
    assert {key: found.keys[key][1] for key in expected} == expected
    assert found.keys["gemma2.attention.layer_norm_rms_epsilon"][1] == np.float32(1e-6)
    per_block = [
        "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "post_attention_norm", "ffn_norm", "ffn_gate",
        "ffn_up", "ffn_down", "post_ffw_norm",
    ]  # fmt: skip
    names = {f"blk.{b}.{name}.weight" for b in range(2) for name in per_block}
    assert set(found.tensors) == names | {"token_embd.weight", "output_norm.weight"}
    stored = read_safetensors(source / "model.safetensors")
    for ours, theirs in [
        ("blk.1.attn_norm", "input_layernorm"),
        ("blk.1.post_attention_norm", "post_attention_layernorm"),
        ("blk.1.ffn_norm", "pre_feedforward_layernorm"),
        ("blk.1.post_ffw_norm", "post_feedforward_layernorm"),
    ]:
        plus_one = stored[f"model.layers.1.{theirs}.weight"][1] + np.float32(1)
        assert found.tensors[f"{ours}.weight"].data == plus_one.tobytes(), ours


def test_an_output_head_that_gemma_2_does_not_have_is_dropped(tmp_path: Path) -> None:
    source = gemma2(tmp_path / "hf")
    tensors = read_safetensors(source / "model.safetensors")
    write_safetensors(source / "model.safetensors", {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    found = convert(source, tmp_path / "x.gguf", type="f16")
    assert "output.weight" not in found.tensors
    assert "lm_head.weight" in streamconv.plan(source, tmp_path / "x.gguf")["left_out"]


def test_the_bundled_model_converts_in_every_way_a_reader_is_shown(tiny_model: Path, tmp_path: Path) -> None:
    found = convert(tiny_model, tmp_path / "x.gguf")
    assert found.keys["general.architecture"][1] == "gemma3"
    assert found.tensors["token_embd.weight"].type == "BF16"
    assert found.tensors["token_embd.weight"].data == (
        read_safetensors(tiny_model / "model.safetensors")["model.embed_tokens.weight"][1].tobytes()
    )
