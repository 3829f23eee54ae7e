"""Models of the hub that hold several sets of weights, an index that is stale, or names as long as file systems take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from container_files import f32, write_safetensors
from hub_cases import MODEL, WEIGHTS, in_hf_cache, tensor_bytes
from running import Run
from server import Hub

from streamconv.sources import read_gguf
from streamconv.sources.mapped import MappedFile
from streamconv.sources.safetensors import read_safetensors

INDEX = "model.safetensors.index.json"


def in_shards(
    store: Path, names: tuple[str, ...] = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
) -> None:
    """Put the weights of ``store`` into files of these ``names`` as well, with an index."""
    found = read_safetensors(MappedFile(store / WEIGHTS)).tensors.items()
    tensors = {t: (rows.dtype, rows.stored(0, rows.n_rows).view("<u2").reshape(rows.shape)) for t, rows in found}
    places = {tensor: names[number * len(names) // len(tensors)] for number, tensor in enumerate(tensors)}
    for file in names:
        write_safetensors(store / file, {t: tensors[t] for t, place in places.items() if place == file})
    (store / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.fixture
def store(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "store"))


def test_an_index_of_files_that_are_gone_does_not_keep_the_whole_file_from_converting(
    hub: Hub, here: Run, store: Path, tmp_path: Path, expected: bytes
) -> None:
    names = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    in_shards(store, names)
    for name in names:
        (store / name).unlink()
    hub.add("org/stale", store)
    for command in ("plan", "convert"):
        done = here(command, "org/stale", tmp_path / "x.gguf", "--type", "q8_0")
        assert done.code == 0, done.err
        assert (
            "model.safetensors is used, as model.safetensors.index.json names files that are missing"
            in done.out + done.err
        )
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert here("fetch", "org/stale").code == 0


@pytest.mark.parametrize("is_stray", [False, True])
def test_of_two_sets_the_whole_file_is_taken_unless_it_is_much_smaller(
    hub: Hub, here: Run, store: Path, tmp_path: Path, expected: bytes, is_stray: bool
) -> None:
    in_shards(store)
    if is_stray:
        write_safetensors(store / WEIGHTS, {"stray": f32(2)})
    hub.add("org/two", store)
    done = here("convert", "org/two", tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    taken, passed = ("model-00001-of-00002.safetensors", WEIGHTS)[:: 1 if is_stray else -1]
    assert hub.bytes_served(taken)
    assert not hub.bytes_served(passed)
    assert "ignored" in done.out + done.err
    assert passed in here("plan", "org/two", tmp_path / "y.gguf", "--type", "q8_0").out


def test_a_folder_that_is_written_from_the_whole_file_has_no_index_of_the_shards(
    hub: Hub, here: Run, store: Path, tmp_path: Path
) -> None:
    in_shards(store)
    hub.add("org/two", store)
    assert here("convert", "org/two", tmp_path / "out").code == 0
    assert not (tmp_path / "out" / INDEX).exists()


def test_files_with_names_as_long_as_file_systems_take_are_fetched_and_converted(
    hub: Hub, here: Run, store: Path, tmp_path: Path, expected: bytes
) -> None:
    names = tuple(f"{letter * 243}.safetensors" for letter in "ab")
    in_shards(store, names)
    (store / WEIGHTS).unlink()
    for size in (245, 250, 255):
        (store / f"{'é' * 100}{'c' * (size - 205)}.json").write_text("{}")
    hub.add("org/long", store)
    done = here("convert", "org/long", tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert here("convert", "org/long", tmp_path / "out").code == 0
    assert max(len(p.name.encode()) for p in (tmp_path / "out").iterdir()) == 255


def test_the_folder_of_a_model_in_the_hubs_own_cache_converts_as_the_model(
    hub: Hub, here: Run, tmp_path: Path, tiny_model: Path, expected: bytes
) -> None:
    snapshot = in_hf_cache(hub, tmp_path / "hf" / "hub", tiny_model)
    repo = snapshot.parent.parent
    done = here("convert", repo, tmp_path / "x.gguf", "--type", "q8_0")
    assert done.code == 0, done.err
    assert tensor_bytes(tmp_path / "x.gguf") == expected
    assert read_gguf(tmp_path / "x.gguf").metadata.get("general.name") == "Tiny Gemma3"
    assert not hub.requests
    (repo / "refs" / "main").unlink()
    assert here("convert", repo, tmp_path / "y.gguf", "--type", "q8_0").code == 0, "there is but one snapshot"
    (repo / "snapshots" / "other").mkdir()
    refused = here("convert", repo, tmp_path / "z.gguf", "--type", "q8_0")
    assert refused.code == 66
    assert "2 snapshots, and refs/main names none of them" in refused.err
    refused = here("convert", repo.parent, tmp_path / "z.gguf", "--type", "q8_0")
    assert refused.code == 66
    assert str(repo) in refused.err, "the model is named"
    assert MODEL.split("/")[1] in str(repo)
