"""Merges as outputs: the same bytes for every budget and interruption, the files of a folder, and GGUF in one step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from merge_cases import arrays, random_model, write_model
from small_models import gemma2, read_safetensors
from test_merge_stacks import config, shapes

import streamconv
from streamconv.errors import Stopped

RECIPES = {
    "dare_ties": "merge_method: dare_ties\nbase_model: {a}\nmodels: [{{model: {b}, parameters: {{weight: 0.5, density: 0.4}}}},"
    " {{model: {c}, parameters: {{weight: 0.7, density: 0.6}}}}]\ndtype: bfloat16\n",
    "ties": "merge_method: ties\nbase_model: {a}\nmodels: [{{model: {b}, parameters: {{weight: 0.5, density: 0.4}}}},"
    " {{model: {c}, parameters: {{weight: 0.7, density: 0.6}}}}]\ndtype: bfloat16\n",
    "slerp": "merge_method: slerp\nbase_model: {a}\nmodels: [{{model: {a}}}, {{model: {b}}}]\nparameters: {{t: 0.4}}\n",
}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for seed, name in enumerate("abc"):
        own = tmp_path / name
        random_model(own, seed, shapes(2), config("llama", 2), "BF16")
        (own / "tokenizer.json").write_text("{}")
        (own / "tokenizer_config.json").write_text(json.dumps({"from": name}))
        (own / "generation_config.json").write_text('{"top_k": 5}')
        (own / "LICENSE").write_text(name)
        found[name] = own
    return found


def write_recipe(folder: Path, text: str, models: dict[str, Path]) -> Path:
    path = folder / "recipe.yml"
    path.write_text(text.format(**{name: json.dumps(str(model)) for name, model in models.items()}))
    return path


@pytest.mark.parametrize("method", RECIPES)
def test_threads_memory_and_interruptions_do_not_change_a_byte(
    method: str, models: dict[str, Path], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, RECIPES[method], models)
    seen = []
    for k, settings in enumerate(({"threads": 1}, {"threads": 3, "ram": "64MiB"}, {"ram": "256MiB"})):
        out = tmp_path / f"out-{k}"
        streamconv.convert(recipe, out, seed=7, **settings)
        seen.append(digests(out))
    interrupted, stops = tmp_path / "interrupted", 0
    while not interrupted.exists():
        try:
            streamconv.convert(recipe, interrupted, seed=7, stop_after_s=0, threads=1, chunk_bytes=4096)
        except Stopped:
            stops += 1
    assert stops > 3
    seen.append(digests(interrupted))
    weights = [{name: value for name, value in found.items() if name.endswith(".json")} for found in seen]
    assert all(found == weights[0] for found in weights)
    values = [read_safetensors(tmp_path / f"out-{k}" / "model.safetensors") for k in range(3)]
    values.append(read_safetensors(interrupted / "model.safetensors"))
    for name, (dtype, words) in values[0].items():
        for other in values[1:]:
            assert other[name][0] == dtype
            np.testing.assert_array_equal(other[name][1], words)
    assert seen[0] == seen[1] == seen[2]  # the header also names the chunk size
    other = tmp_path / "other"
    streamconv.convert(recipe, other, seed=8)
    assert digests(other)["model.safetensors"] != seen[0]["model.safetensors"]


def test_a_folder_has_shards_index_card_and_every_side_file(models: dict[str, Path], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPES["slerp"], models)
    out = tmp_path / "out"
    streamconv.convert(recipe, out, max_shard_bytes=1000)
    names = {path.name for path in out.iterdir()}
    shards = sorted(name for name in names if name.startswith("model-0"))
    assert len(shards) > 2
    assert names - set(shards) == {
        "model.safetensors.index.json", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        "LICENSE", "README.md", "mergekit_config.yml",
    }  # fmt: skip
    index = json.loads((out / "model.safetensors.index.json").read_text())
    found = {name: shard for shard in shards for name in read_safetensors(out / shard)}
    assert index["weight_map"] == found
    assert index["metadata"]["total_size"] == sum(
        words.nbytes for shard in shards for _, words in read_safetensors(out / shard).values()
    )
    assert (out / "mergekit_config.yml").read_text() == recipe.read_text()
    card = (out / "README.md").read_text()
    assert recipe.read_text().strip() in card
    assert f"- {json.dumps(str(models['b']))}" in card.split("---")[1]
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"from": "a"}
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (models["a"], out))
    assert {**before, "torch_dtype": "bfloat16"} == after
    assert list(before) == list(after)


@pytest.mark.parametrize("type_", ["auto", "BF16"])
def test_plain_files_merge_into_a_file_and_nothing_beside_it(type_: str, tmp_path: Path) -> None:
    for model in ("base", "ft1"):
        (write_model(tmp_path / model, arrays(f"inputs/llama/{model}"), {}) / "config.json").unlink()
    text = "merge_method: linear\nmodels: [{{model: {a}}}, {{model: {b}}}]\nparameters: {{weight: 1}}\n"
    files = {name: tmp_path / model / "model.safetensors" for name, model in (("a", "base"), ("b", "ft1"))}
    out = tmp_path / "out"
    streamconv.convert(write_recipe(tmp_path, text, files), out, type=type_)
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert set(read_safetensors(out / "model.safetensors")) == set(arrays("inputs/llama/base"))


@pytest.mark.parametrize("name", ["merged-v0.3", "Llama-3.1-8B-merged"])
def test_a_folder_may_have_a_version_in_its_name(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    streamconv.convert(write_recipe(tmp_path, RECIPES["slerp"], models), tmp_path / name)
    assert (tmp_path / name / "config.json").exists()


def _gemmas(folder: Path) -> dict[str, Path]:
    return {name: gemma2(folder / name, seed) for seed, name in enumerate("abc")}


def test_a_recipe_becomes_a_quantized_file_in_one_step_with_its_own_name(tmp_path: Path) -> None:
    models = _gemmas(tmp_path)
    recipe = write_recipe(tmp_path, RECIPES["ties"], models).rename(tmp_path / "my-blend.yml")
    direct, folder, twice = tmp_path / "direct.gguf", tmp_path / "my-blend", tmp_path / "twice.gguf"
    streamconv.convert(recipe, direct, type="Q8_0")
    streamconv.convert(recipe, folder)
    streamconv.convert(folder, twice, type="Q8_0")
    one, two = gguf_reader.read(direct), gguf_reader.read(twice)
    assert one.keys["general.name"][1] == "My Blend"
    assert set(one.tensors) == set(two.tensors)
    for name, tensor in one.tensors.items():
        assert bytes(tensor.data) == bytes(two.tensors[name].data), name


def test_repeated_layers_go_to_gguf(tmp_path: Path) -> None:
    models = _gemmas(tmp_path)
    text = "merge_method: passthrough\nslices:\n" + "- sources: [{{model: {a}, layer_range: [0, 2]}}]\n" * 2
    out = tmp_path / "out.gguf"
    streamconv.convert(write_recipe(tmp_path, text, models), out, type="F16")
    found = gguf_reader.read(out)
    assert found.keys["gemma2.block_count"][1] == 4
    for name in ("attn_q", "ffn_down", "attn_norm"):
        first, second = (bytes(found.tensors[f"blk.{i}.{name}.weight"].data) for i in (0, 2))
        assert first == second


def test_vectors_of_gguf_files_stay_float32_for_runtimes_take_no_others(tmp_path: Path) -> None:
    models = _gemmas(tmp_path)
    files = {name: tmp_path / f"{name}.gguf" for name in models}
    for name, model in models.items():
        streamconv.convert(model, files[name], type="BF16")
    out = tmp_path / "out.gguf"
    streamconv.convert(write_recipe(tmp_path, RECIPES["ties"], files), out, type="BF16")
    types = {name: (len(tensor.ne), tensor.type) for name, tensor in gguf_reader.read(out).tensors.items()}
    assert set(types.values()) == {(1, "F32"), (2, "BF16")}


@pytest.mark.parametrize("stacked", [False, True])
def test_gguf_files_are_merged_and_stacked_as_they_are(stacked: bool, tmp_path: Path) -> None:
    models = _gemmas(tmp_path)
    files = {}
    for name, model in models.items():
        files[name] = tmp_path / f"{name}.gguf"
        streamconv.convert(model, files[name], type="F32")
    text = "merge_method: linear\nmodels: [{{model: {a}}}, {{model: {b}}}]\nparameters: {{weight: 1}}\n"
    if stacked:
        text = "merge_method: passthrough\nslices:\n" + "- sources: [{{model: {a}, layer_range: [0, 2]}}]\n" * 2
    out, direct = tmp_path / "out.gguf", tmp_path / "direct.gguf"
    streamconv.convert(write_recipe(tmp_path, text, files), out, type="F32")
    streamconv.convert(write_recipe(tmp_path, text, models), direct, type="F32")
    found, want = gguf_reader.read(out), gguf_reader.read(direct)
    assert set(found.tensors) == set(want.tensors)
    for name, tensor in want.tensors.items():
        # norms are stored with 1 added, which rounds
        np.testing.assert_allclose(
            np.frombuffer(bytes(found.tensors[name].data), "<f4"),
            np.frombuffer(bytes(tensor.data), "<f4"),
            rtol=1e-6,
            atol=1e-7,
        )
    keys: dict[str, Any] = {key: want.keys[key] for key in want.keys if key.startswith("gemma2.")}
    assert {key: found.keys[key] for key in keys} == keys
    assert found.keys["general.name"][1] == "recipe"
