"""Every header is judged before it is written: what the source lacks is told, what our rules lose is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import Tensors, changed, read_safetensors, write_safetensors

import streamconv
from streamconv.check import check_gguf
from streamconv.errors import BadInput
from streamconv.metadata import Metadata
from streamconv.models import FAMILIES
from streamconv.models.config import Config
from streamconv.models.gguf_names import known_names
from streamconv.models.keys import rms_epsilon

_UP = "model.layers.1.mlp.up_proj.weight"
CASES = {"mistral-spm": None, "qwen2-yarn": "qwen2", "qwen3-tied": "qwen2", "gemma1": None, "gemma3-text": None}


@pytest.fixture
def mistral(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def told(source: Path, out: Path) -> list[str]:
    """What a conversion says of loaders; what it writes is called damaged by ``check`` where it says something."""
    warnings = [w for w in streamconv.plan(source, out)["warnings"] if "no runtime will load the output" in w]
    streamconv.convert(source, out, type="f32", threads=1)
    errors = [f.message for f in check_gguf(out, scan=False) if f.severity == "error"]
    assert [w.removeprefix("no runtime will load the output: ") for w in warnings] == errors
    return warnings


def test_a_whole_checkpoint_has_nothing_to_be_told_of(mistral: Path, tmp_path: Path) -> None:
    assert told(mistral, tmp_path / "x.gguf") == []


def test_a_tensor_that_the_checkpoint_lacks_is_told_by_name(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf", without(_UP))
    (warning,) = told(source, tmp_path / "x.gguf")
    assert "'blk.1.ffn_up.weight' is missing" in warning


def test_a_key_that_config_json_lacks_is_told_by_name(
    mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES["MistralForCausalLM"]
    defaults = {key: value for key, value in family.classes["mistral"].items() if key != "rms_norm_eps"}
    monkeypatch.setitem(FAMILIES, "MistralForCausalLM", replace(family, classes={"mistral": defaults}))
    source = changed(mistral, tmp_path / "hf", config=lambda c: c.pop("rms_norm_eps"))
    (warning,) = told(source, tmp_path / "x.gguf")
    assert "key llama.attention.layer_norm_rms_epsilon is missing" in warning


def test_tensors_that_no_loader_asks_for_are_told(mistral: Path, tmp_path: Path) -> None:
    bias = {"model.layers.1.self_attn.o_proj.bias": ("F32", np.ones(64, "<f4"))}
    qwen = mistral.parent.parent / "qwen2-yarn" / "hf"
    source = changed(qwen, tmp_path / "hf", lambda t: {**t, **bias})
    warnings = streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2")["warnings"]
    assert any("the loader does not look for 'blk.1.attn_output.bias'" in text for text in warnings)


@pytest.mark.parametrize("where", ["drops", "names"])
def test_a_tensor_that_our_rules_lose_is_refused(
    mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    family = FAMILIES["MistralForCausalLM"]
    wrong = {
        "drops": replace(family, drops={"*.up_proj.weight": "for no reason"}),
        "names": replace(family, names={"model.layers.{bid}.mlp.up_proj": "blk.{bid}.ffn_upp"}),
    }
    monkeypatch.setitem(FAMILIES, "MistralForCausalLM", wrong[where])
    with pytest.raises(BadInput, match=r"lacks blk\.0\.ffn_up\.weight, which tensor 'model\.layers\.0\.mlp\.up_proj"):
        streamconv.convert(mistral, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_what_our_rules_lose_is_refused_where_the_checkpoint_lacks_it_in_another_layer(
    mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES["MistralForCausalLM"]
    wrong = replace(family, drops={"model.layers.1.mlp.up_proj.weight": "for no reason"})
    monkeypatch.setitem(FAMILIES, "MistralForCausalLM", wrong)
    source = changed(mistral, tmp_path / "hf", without("model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(BadInput, match=r"lacks blk\.1\.ffn_up\.weight"):
        streamconv.plan(source, tmp_path / "x.gguf")


def test_a_key_that_our_rules_lose_is_refused(mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["MistralForCausalLM"]
    wrong = replace(family, keys=tuple(key for key in family.keys if key is not rms_epsilon))
    monkeypatch.setitem(FAMILIES, "MistralForCausalLM", wrong)
    with pytest.raises(BadInput, match=r"lacks llama\.attention\.layer_norm_rms_epsilon, which config\.json"):
        streamconv.plan(mistral, tmp_path / "x.gguf")


def test_an_architecture_that_the_table_does_not_know_is_said_to_be_unknown(
    mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokens(m: Metadata, a: str, c: Config) -> None:
        m.u32(f"{a}.context_length", 1)

    new = replace(FAMILIES["MistralForCausalLM"], arch="brand-new", names=dict(known_names("llama")), keys=(tokens,))
    monkeypatch.setitem(FAMILIES, "MistralForCausalLM", new)
    warnings = streamconv.plan(mistral, tmp_path / "x.gguf")["warnings"]
    assert [w for w in warnings if "architecture 'brand-new' is not one that check knows" in w]
    assert not [w for w in warnings if "no runtime" in w]


def test_a_vocabulary_alone_is_not_asked_for_tensors(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf", without(_UP))
    warnings = streamconv.plan(source, tmp_path / "x.gguf", vocab_only=True)["warnings"]
    assert not [w for w in warnings if "no runtime" in w]


def test_a_checkpoint_without_any_tensor_of_the_model_is_refused(mistral: Path, tmp_path: Path) -> None:
    source = changed(mistral, tmp_path / "hf", lambda _: {"vision_tower.x.weight": ("F32", np.ones((2, 2), "<f4"))})
    with pytest.raises(BadInput, match="no tensor belongs to architecture 'llama'"):
        streamconv.plan(source, tmp_path / "x.gguf")


def test_a_merge_is_judged_as_a_checkpoint_is(mistral: Path, tmp_path: Path) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    changed(mistral, tmp_path / "a", without(_UP))
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(json.dumps({"merge_method": "passthrough", "slices": [
        {"sources": [{"model": a, "layer_range": [0, 1]}]}, {"sources": [{"model": a, "layer_range": [0, 1]}]},
        {"sources": [{"model": a, "layer_range": [0, 1]}]},
    ]}))  # fmt: skip
    assert not [w for w in streamconv.plan(recipe, tmp_path / "x.gguf")["warnings"] if "no runtime" in w]
    changed(mistral, tmp_path / "b", without("model.norm.weight"))
    recipe.write_text(json.dumps({"merge_method": "linear", "models": [{"model": b, "parameters": {"weight": 1}}]}))
    (warning,) = (w for w in streamconv.plan(recipe, tmp_path / "x.gguf")["warnings"] if "no runtime" in w)
    assert "'output_norm.weight' is missing" in warning


def misfits(words: np.ndarray) -> Iterator[np.ndarray]:
    """Shapes that are not the one that the configuration tells."""
    yield words[:-1] if len(words) > 1 else np.concatenate([words, words])
    yield np.concatenate([words, words])
    yield words.reshape(-1)[:1].reshape(())
    yield words.reshape(-1) if words.ndim > 1 else np.stack([words, words])
    yield words[:0]
    yield np.stack([words, words])


@pytest.mark.parametrize("case", CASES)
def test_no_tensor_of_another_shape_passes_and_none_is_a_crash(case: str, data: Path, tmp_path: Path) -> None:
    source = changed(data / "checkpoints" / case / "hf", tmp_path / "hf")
    weights = source / "model.safetensors"
    whole = read_safetensors(weights)
    for name in whole:
        rows_are_cut = case == "gemma3-text" and name == "model.embed_tokens.weight"
        if ".layers.1." in name or not (".layers." in name or rows_are_cut):
            for words in misfits(whole[name][1]):
                write_safetensors(weights, {**whole, name: (whole[name][0], words)})
                with pytest.raises(BadInput, match=r"shape|embedding") as caught:
                    streamconv.plan(source, tmp_path / "x.gguf", pre=CASES[case])
                assert name in caught.value.message or "embedding" in caught.value.message
