"""Options of the converter: what lies beside a model, what a file says of it, how 8-bit floats and the first shard are written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import option_models
import pytest
from small_models import write_safetensors

import streamconv
from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.rows import matrix_shape
from streamconv.sources import read_gguf


@pytest.fixture
def small(data: Path) -> Path:
    return data / "checkpoints" / "mistral-spm" / "hf"


# 8-bit floats.


def types(source: Path, tmp_path: Path, type: str, **options: Any) -> dict[str, str]:
    found = streamconv.plan(source, tmp_path / "x.gguf", type=type, fp8_as_q8=True, **options)["tensors"]
    return {t["name"].removeprefix("blk.1."): t["type"] for t in found}


@pytest.mark.parametrize("type", ["f16", "f32", "auto"])
def test_what_is_stored_as_8_bit_floats_becomes_q8_0_and_the_rest_what_it_was_to_be(tmp_path: Path, type: str) -> None:
    found = types(option_models.fp8(tmp_path / "hf"), tmp_path, type)
    assert {found[name] for name in ("attn_q.weight", "ffn_up.weight", "attn_v.weight")} == {"Q8_0"}
    assert found["ffn_down.weight"] == "F16", "its columns are no multiple of 32"
    assert found["token_embd.weight"] == {"f16": "F16", "f32": "F32", "auto": "BF16"}[type]
    assert found["attn_norm.weight"] == "F32"


def test_where_no_tensor_would_be_a_float_the_option_is_told_to_do_nothing(tmp_path: Path) -> None:
    source = option_models.fp8(tmp_path / "hf")
    for kind in ("q8_0", "q4_k_m"):
        told = streamconv.plan(source, tmp_path / "x.gguf", type=kind, fp8_as_q8=True)["warnings"]
        assert f"--fp8-as-q8 has no effect on files of type {kind}" in told


def test_without_8_bit_floats_the_option_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fp8-as-q8 has no effect: the model has no 8-bit floats"):
        types(small, tmp_path, "f16")


# What a file says of a model.


def said(tmp_path: Path, source: Path, **keys: Any) -> tuple[Any, list[str]]:
    """The metadata of a conversion with a file of ``keys``, whose dots are underscores twice, and what was told."""
    path = tmp_path / "said.json"
    path.write_text(json.dumps({f"general.{key.replace('__', '.')}": value for key, value in keys.items()}))
    told = streamconv.plan(source, tmp_path / "x.gguf", metadata=path)["warnings"]
    (out,) = streamconv.convert(source, tmp_path / "x.gguf", metadata=path, vocab_only=True, force=True, threads=1)
    return read_gguf(out).metadata, told


def test_a_file_says_who_made_a_model_and_from_what(small: Path, tmp_path: Path) -> None:
    base = [{"name": "Base", "repo_url": "https://x"}]
    found, _ = said(
        tmp_path, small, author="Ann", license="mit", tags=["a", "b"], base_models=base, sampling__top_k=7, version=2
    )
    values = [found.get(f"general.{key}") for key in ("author", "license", "sampling.top_k", "version")]
    assert values == ["Ann", "mit", 7, "2"]
    assert list(found.get("general.tags")) == ["a", "b"]
    assert found.get("general.base_model.0.repo_url") == "https://x"


def test_null_leaves_out_what_the_files_of_the_model_say(small: Path, tmp_path: Path) -> None:
    found, _ = said(tmp_path, small, author=None, name=None)
    assert "general.author" not in found
    assert found.get("general.name") == small.resolve().name


def test_a_key_that_is_none_of_a_model_is_told(small: Path, tmp_path: Path) -> None:
    _, told = said(tmp_path, small, autor="Ann")
    path = tmp_path / "said.json"
    assert f"{path}: 'general.autor' is not a key that --metadata sets, so it has no effect" in told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"general.author": ["Ann"]}', "general.author is not a text"),
        ('{"general.author": true}', "general.author is not a text"),
        ('{"general.tags": "a"}', "general.tags is not a list of texts"),
        ('{"general.datasets": ["a"]}', "general.datasets is not a list of objects"),
        ("[]", "is not a JSON object"),
        ("{", "said.json"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_file_and_key(
    small: Path, tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "said.json").write_text(text)
    with pytest.raises(BadInput, match=why) as caught:
        streamconv.plan(small, tmp_path / "x.gguf", metadata=tmp_path / "said.json")
    assert str(tmp_path / "said.json") in caught.value.message


def test_a_file_that_is_not_there_is_missing(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"said\.json"):
        streamconv.plan(small, tmp_path / "x.gguf", metadata=tmp_path / "said.json")


# The first shard.


@pytest.mark.parametrize("limit", [{"split_max_tensors": 9}, {"split_max_bytes": 100_000}])
def test_the_first_shard_holds_no_tensors_where_that_is_asked_for(
    small: Path, tmp_path: Path, limit: dict[str, int]
) -> None:
    plain = streamconv.convert(small, tmp_path / "x.gguf", type="f16", threads=1, **limit)
    shards = streamconv.convert(small, tmp_path / "y.gguf", type="f16", threads=1, no_tensor_first_split=True, **limit)
    found = [read_gguf(path) for path in shards]
    assert len(shards) == len(plain) + 1
    assert [[*shard.tensors] for shard in found] == [[], *([*read_gguf(path).tensors] for path in plain)]
    assert [shard.metadata.get("split.count") for shard in found] == [len(shards)] * len(shards)
    assert "tokenizer.ggml.tokens" in found[0].metadata
    assert len(streamconv.open(shards[0])) == found[0].metadata.get("split.tensors.count")


def test_the_first_shard_of_a_file_that_is_not_split_cannot_be_empty(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no effect without --split-max-size or --split-max-tensors"):
        streamconv.plan(small, tmp_path / "x.gguf", no_tensor_first_split=True)


# The dense modules of sentence-transformers.


def whole(rows: Any) -> np.ndarray:
    return np.asarray(rows.read(0, matrix_shape(rows.shape)[0]))


def test_dense_modules_come_first_with_their_widths(tmp_path: Path) -> None:
    matrices = option_models.embedder(tmp_path / "hf")
    (out,) = streamconv.convert(tmp_path / "hf", tmp_path / "x.gguf", type="f32", dense_modules=True, threads=1)
    found, tensors = read_gguf(out), streamconv.open(out)
    assert [*found.tensors][:2] == ["dense_2.weight", "dense_3.weight"]
    assert np.array_equal(whole(tensors["dense_2.weight"]), matrices["2_Dense"])
    assert np.array_equal(whole(tensors["dense_3.weight"]), matrices["3_Dense"])
    widths = [found.metadata.get(f"gemma-embedding.dense_{n}_feat_{end}") for n in (2, 3) for end in ("in", "out")]
    assert widths == [64, 128, 128, 64]
    assert found.metadata.get("gemma-embedding.pooling_type") == 1


def test_without_the_option_they_stay_where_they_are(tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "hf")
    assert not any("dense" in t["name"] for t in streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf")["tensors"])


@pytest.mark.parametrize("architecture", ["Lfm2Model", "Lfm2BidirectionalModel"])
def test_the_projection_of_a_model_that_cannot_do_without_comes_without_an_option(
    tmp_path: Path, architecture: str
) -> None:
    matrix = option_models.colbert(tmp_path / "hf", architecture)
    (out,) = streamconv.convert(tmp_path / "hf", tmp_path / "x.gguf", type="f32", pre="qwen2", threads=1)
    found = read_gguf(out)
    assert next(iter(found.tensors)) == "dense_2.weight"
    assert np.array_equal(whole(streamconv.open(out)["dense_2.weight"]), matrix)
    assert found.metadata.get("lfm2.embedding_length_out") == 32
    record = (tmp_path / ".x.gguf.streamconv").read_text()
    assert str(Path("1_Dense") / "model.safetensors") in record, "it is one of the inputs"


def test_a_projection_needs_no_configuration_and_need_not_be_there(tmp_path: Path) -> None:
    option_models.colbert(tmp_path / "hf")
    (tmp_path / "hf" / "1_Dense" / "config.json").unlink()
    names = [t["name"] for t in streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf", pre="qwen2")["tensors"]]
    assert names.count("dense_2.weight") == 1
    shutil.rmtree(tmp_path / "hf" / "1_Dense")
    (out,) = streamconv.convert(tmp_path / "hf", tmp_path / "x.gguf", type="f32", pre="qwen2", threads=1)
    assert [*read_gguf(out).tensors] == names[1:]
    assert "lfm2.embedding_length_out" not in read_gguf(out).metadata


def test_projections_are_merged_with_their_models(tmp_path: Path) -> None:
    first = option_models.colbert(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_safetensors(tmp_path / "b" / "1_Dense" / "model.safetensors", {"linear.weight": ("F32", first * 3)})
    (tmp_path / "m.yml").write_text(
        f"merge_method: linear\ndtype: float32\nparameters: {{weight: 0.5}}\n"
        f"models: [{{model: {tmp_path}/a}}, {{model: {tmp_path}/b}}]\n"
    )
    (out,) = streamconv.convert(tmp_path / "m.yml", tmp_path / "x.gguf", type="f32", pre="qwen2", threads=1)
    assert np.allclose(whole(streamconv.open(out)["dense_2.weight"]), first * 2)
    assert read_gguf(out).metadata.get("lfm2.embedding_length_out") == 32


def test_modules_that_a_folder_does_not_get_are_told(tmp_path: Path) -> None:
    option_models.colbert(tmp_path / "a")
    option_models.embedder(tmp_path / "e")
    (tmp_path / "m.yml").write_text(f"merge_method: passthrough\nmodels: [{{model: {tmp_path}/a}}]\n")
    for source, names in (("a", ["1_Dense"]), ("m.yml", ["1_Dense"]), ("e", ["2_Dense", "3_Dense"])):
        notes = streamconv.plan(tmp_path / source, tmp_path / "out", type="bf16")["warnings"]
        told = [note for note in notes if "are not in the output" in note]
        assert len(told) == len(names), notes
        assert all(name in note for name, note in zip(names, told, strict=True))


def test_a_projection_whose_weights_are_missing_is_told(tmp_path: Path) -> None:
    option_models.colbert(tmp_path / "hf")
    (tmp_path / "hf" / "1_Dense" / "model.safetensors").unlink()
    with pytest.raises(InputMissing, match="1_Dense"):
        streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf", pre="qwen2")


def test_a_dense_module_that_changes_makes_another_job(tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "hf")
    arguments: dict[str, Any] = {"type": "f32", "dense_modules": True, "threads": 1}
    streamconv.convert(tmp_path / "hf", tmp_path / "x.gguf", **arguments)
    weights = tmp_path / "hf" / "2_Dense" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(streamconv.StreamconvError):
        streamconv.convert(tmp_path / "hf", tmp_path / "x.gguf", **arguments)


@pytest.mark.parametrize(
    ("more", "config", "why"),
    [
        ({}, {"activation_function": "torch.nn.modules.activation.Tanh"}, "'activation_function' is .*Tanh"),
        ({"linear.bias": ("F32", np.zeros(64, np.float32))}, {}, "no runtime computes with tensor .*linear.bias"),
        ({}, {"out_features": 65}, "'out_features' is .*65.*, but linear.weight has shape"),
    ],
)
def test_a_dense_module_that_no_runtime_computes_is_refused(
    tmp_path: Path, more: Any, config: dict[str, Any], why: str
) -> None:
    option_models.embedder(tmp_path / "hf", ("2_Dense",))
    for path in (tmp_path / "hf" / "2_Dense").iterdir():
        path.unlink()
    (tmp_path / "hf" / "2_Dense").rmdir()
    option_models.dense(tmp_path / "hf" / "2_Dense", 64, 64, more, **config)
    with pytest.raises(BadInput, match=why):
        streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf", dense_modules=True)


def test_dense_modules_that_are_not_there_or_not_taken_are_refused(small: Path, tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match=r"no effect: .*modules\.json names no dense module"):
        streamconv.plan(small, tmp_path / "x.gguf", dense_modules=True)
    option_models.embedder(tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    config.write_text(config.read_text().replace("Gemma3TextModel", "Gemma3ForCausalLM"))
    with pytest.raises(UsageError, match="no effect: no runtime looks for such modules in architecture 'gemma3'"):
        streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf", dense_modules=True)
    recipe = tmp_path / "r.yml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {tmp_path / 'hf'}}}]\n")
    with pytest.raises(UsageError, match="no model's folder"):
        streamconv.plan(recipe, tmp_path / "x.gguf", dense_modules=True)
    option_models.embedder(tmp_path / "more", ("2_Dense", "3_Dense", "5_Dense"))
    with pytest.raises(BadInput, match="names 3 dense modules"):
        streamconv.plan(tmp_path / "more", tmp_path / "x.gguf", dense_modules=True)


def test_a_module_outside_of_the_models_folder_is_refused(tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "hf")
    listed = tmp_path / "hf" / "modules.json"
    listed.write_text(listed.read_text().replace("2_Dense", "../2_Dense"))
    with pytest.raises(BadInput, match=r"the path .*\.\./2_Dense.* is not that of a module"):
        streamconv.plan(tmp_path / "hf", tmp_path / "x.gguf", dense_modules=True)
