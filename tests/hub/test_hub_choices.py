"""Which of the files that are there, at the hub and in caches, are taken, and what is told while they come."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import option_models
import pytest
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Result, Run
from server import Hub

from streamconv.sources.hub.choosing import index_file, side_files
from streamconv.sources.hub.model import HubFile, HubModel


def events(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def test_fetching_counts_from_what_is_here_to_all_that_is_wanted(hub: Hub, here: Run, tiny_model: Path) -> None:
    weights = (tiny_model / WEIGHTS).stat().st_size
    first = events(here("fetch", MODEL, "--json"))
    (start,) = (e for e in first if e["event"] == "start")
    told = [e["done"] for e in first if e["event"] == "progress"]
    total = first[-1]["total"]
    assert (start["total"], start["done"]) == (total, total - weights), "the small files come before the count begins"
    assert told == sorted(told)
    assert (told[-1], first[-1]["bytes"]) == (total, weights)
    again = events(here("fetch", MODEL, "--json"))
    (start,) = (e for e in again if e["event"] == "start")
    assert (start["done"], start["total"], again[-1]["already"]) == (total, total, True)


def test_weights_in_folders_of_the_repository_are_left_there(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, expected: bytes
) -> None:
    store = shutil.copytree(tiny_model, tmp_path / "store")
    for place in ("model-in-parts/a.safetensors", "model_old/model.safetensors", "onnx/model.safetensors"):
        (store / place).parent.mkdir()
        (store / place).write_bytes(b"something else" * 1000)
    hub.add("org/several", store)
    done = here("convert", "org/several", tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert not [path for path in hub.served if path.startswith(("model-in-parts", "model_old", "onnx"))]


def model(*paths: str, size: int = 9) -> HubModel:
    repo, commit = "org/several", "0" * 40
    files = {path: HubFile(repo, commit, path, size, "sha256", "0" * 64) for path in paths}
    return HubModel(repo, "main", commit, files)


@pytest.mark.parametrize(("size", "is_taken"), [(40_000_000, True), (300_000_000, False)])
def test_what_lies_beside_the_weights_is_taken_unless_it_is_of_their_size(size: int, is_taken: bool) -> None:
    assert bool(side_files(model("tokenizer.json", size=size))) == is_taken


def test_an_index_is_that_of_the_weights_beside_it_whatever_lies_in_folders() -> None:
    assert (
        index_file(model("pytorch_model.bin.index.json", "model_x/model.safetensors")) == "pytorch_model.bin.index.json"
    )
    assert index_file(model("pytorch_model.bin.index.json", "model-1.safetensors")) == ""
    assert index_file(model("model.safetensors.index.json", "model-1.safetensors")) == "model.safetensors.index.json"


def test_a_short_file_in_the_hubs_own_cache_is_fetched_anew(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, expected: bytes
) -> None:
    weights = (in_hf_cache(hub, tmp_path / "hf" / "hub", tiny_model) / WEIGHTS).resolve()
    size = weights.stat().st_size
    os.truncate(weights, size - 1000)
    done = here("convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert hub.bytes_served(WEIGHTS) == size
    assert {path for path, spans in hub.served.items() if spans} == {WEIGHTS}, "the other files are whole"


def test_the_modules_of_an_embedder_come_with_it(hub: Hub, here: Run, tmp_path: Path, data: Path) -> None:
    store = shutil.copytree(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / "store")
    modules = [{"path": "", "type": "st.models.Transformer"}, {"path": "1_Pooling", "type": "st.models.Pooling"}]
    (store / "modules.json").write_text(json.dumps(modules))
    for folder in ("1_Pooling", "onnx"):
        (store / folder).mkdir()
        (store / folder / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    (store / "1_Pooling" / "model.safetensors").write_bytes(b"something else" * 1000)
    hub.add("org/embedder", store)
    for source, out in (("org/embedder", "hub.gguf"), (str(store), "folder.gguf")):
        done = here("convert", source, tmp_path / out, "--type", "f16", "--pre", "qwen2")
        assert done.code == 0, done.err
        assert json.loads(here("inspect", tmp_path / out, "--json").out)["metadata"]["qwen3.pooling_type"] == 3
    assert "1_Pooling/config.json" in hub.served
    assert not {"onnx/config.json", "1_Pooling/model.safetensors"} & set(hub.served)


def test_dense_modules_are_fetched_where_they_are_taken_along(hub: Hub, here: Run, tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "store")
    hub.add("org/embedder", tmp_path / "store")
    option = "--sentence-transformers-dense-modules"
    assert here("convert", "org/embedder", tmp_path / "x.gguf", "--type", "f16").code == 0
    assert not {"2_Dense/model.safetensors", "3_Dense/model.safetensors"} & set(hub.served)
    for source, out in (("org/embedder", "hub.gguf"), (str(tmp_path / "store"), "folder.gguf")):
        done = here("convert", source, tmp_path / out, "--type", "f16", option)
        assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "hub.gguf") == tensor_bytes(tmp_path / "folder.gguf")
    assert hub.bytes_served("2_Dense/model.safetensors") > 0


def test_fetch_brings_dense_modules_so_that_no_network_is_needed(hub: Hub, here: Run, tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "store")
    hub.add("org/embedder", tmp_path / "store")
    assert here("fetch", "org/embedder").code == 0
    option = "--sentence-transformers-dense-modules"
    done = here("convert", "org/embedder", tmp_path / "x.gguf", "--type", "f16", option, "--offline")
    assert done.code == 0, done.err
    tensors = json.loads(here("inspect", tmp_path / "x.gguf", "--json").out)["tensors"]
    assert [t["name"] for t in tensors][:2] == ["dense_2.weight", "dense_3.weight"]


def test_the_projection_of_a_model_that_cannot_do_without_is_fetched(hub: Hub, here: Run, tmp_path: Path) -> None:
    option_models.colbert(tmp_path / "store")
    hub.add("org/colbert", tmp_path / "store")
    done = here("convert", "org/colbert", tmp_path / "x.gguf", "--type", "f16", "--pre", "qwen2")
    assert done.code == 0, done.err
    assert hub.bytes_served("1_Dense/model.safetensors") > 0
    tensors = json.loads(here("inspect", tmp_path / "x.gguf", "--json").out)["tensors"]
    assert tensors[0]["name"] == "dense_2.weight"


def test_a_dense_module_that_the_hub_lacks_is_missing(hub: Hub, here: Run, tmp_path: Path) -> None:
    option_models.embedder(tmp_path / "store")
    (tmp_path / "store" / "3_Dense" / "model.safetensors").unlink()
    hub.add("org/embedder", tmp_path / "store")
    done = here("convert", "org/embedder", tmp_path / "x.gguf", "--sentence-transformers-dense-modules")
    assert (done.code, "3_Dense lacks config.json or model.safetensors" in done.err) == (66, True)


def test_a_folder_that_is_written_keeps_the_modules_of_an_embedder(here: Run, tmp_path: Path, tiny_model: Path) -> None:
    store = shutil.copytree(tiny_model, tmp_path / "store")
    for name in ("1_Pooling/config.json", "2_Dense/notes.txt"):
        (store / name).parent.mkdir()
        (store / name).write_text("{}")
    assert here("convert", store, tmp_path / "out").code == 0
    kept = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert "1_Pooling/config.json" in kept
    assert "2_Dense/notes.txt" not in kept
