"""Checkpoint folders: shards, indexes, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from container_files import f32, write_safetensors

from streamconv.errors import BadInput, InputMissing
from streamconv.sources import open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return folder


def index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    )


def test_one_file_with_its_config(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {"b": f32(2, 3), "a": f32(4)})
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["a", "b"]
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert [file.name for file in checkpoint.inputs] == ["model.safetensors"]
    assert checkpoint.metadata is None
    assert checkpoint.warnings == []


def test_tensors_come_shard_by_shard_and_by_name_within(folder: Path) -> None:
    write_safetensors(folder / "model-00002-of-00002.safetensors", {"a": f32(1), "layers.2": f32(1)})
    write_safetensors(folder / "model-00001-of-00002.safetensors", {"z": f32(1), "layers.10": f32(1), "lm": f32(1)})
    assert list(open_checkpoint(folder).tensors) == ["layers.10", "lm", "z", "a", "layers.2"]


def test_only_files_of_the_index_are_read(folder: Path) -> None:
    write_safetensors(folder / "part-b.safetensors", {"x": f32(1)})
    write_safetensors(folder / "part-a.safetensors", {"y": f32(1)})
    write_safetensors(folder / "model.safetensors", {"stale": f32(1)})
    index(folder, {"x": "part-b.safetensors", "y": "part-a.safetensors"})
    assert list(open_checkpoint(folder).tensors) == ["y", "x"]


def test_a_missing_shard_of_the_index_is_named(folder: Path) -> None:
    write_safetensors(folder / "a.safetensors", {"x": f32(1)})
    index(folder, {"x": "a.safetensors", "y": "b.safetensors"})
    with pytest.raises(InputMissing, match=r"1 of 2 weight files not found: 'b\.safetensors'"):
        open_checkpoint(folder)


def test_a_missing_shard_of_a_numbered_series_is_named_without_an_index(folder: Path) -> None:
    write_safetensors(folder / "model-00001-of-00003.safetensors", {"x": f32(1)})
    write_safetensors(folder / "model-00003-of-00003.safetensors", {"y": f32(1)})
    with pytest.raises(InputMissing, match="model-00002-of-00003") as caught:
        open_checkpoint(folder)
    assert caught.value.exit_code == 66


@pytest.mark.parametrize(
    "file",
    ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "..", ".", "", "a\0b", ["a"], None, 3],
)
def test_an_index_that_leads_elsewhere_is_refused_before_opening(folder: Path, file: object) -> None:
    index(folder, {"w": file})
    with pytest.raises(BadInput, match="weight_map"):
        open_checkpoint(folder)


def test_text_that_cannot_be_written_again_is_refused(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {"w": f32(1)})
    (folder / "config.json").write_text(r'{"model_type": "\ud83d\ude00"}')
    assert open_checkpoint(folder).config == {"model_type": "\U0001f600"}
    (folder / "config.json").write_text(r'{"model_type": "\ud83d"}')
    with pytest.raises(BadInput, match=r"config\.json contains half of a surrogate pair"):
        open_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [{}, [], "x", None])
def test_an_index_without_a_map_is_refused(folder: Path, weight_map: object) -> None:
    index(folder, weight_map)
    with pytest.raises(BadInput, match="no weight_map"):
        open_checkpoint(folder)


def test_a_promised_tensor_that_no_shard_holds_is_named(folder: Path) -> None:
    write_safetensors(folder / "a.safetensors", {"w": f32(1)})
    index(folder, {"w": "a.safetensors", "v": "a.safetensors"})
    with pytest.raises(BadInput, match="promises 'v', missing"):
        open_checkpoint(folder)


def test_a_tensor_that_the_index_forgot_is_read_with_a_warning(folder: Path) -> None:
    write_safetensors(folder / "a.safetensors", {"w": f32(1), "u": f32(1)})
    index(folder, {"w": "a.safetensors"})
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["u", "w"]
    assert "does not list 'u'" in checkpoint.warnings[0]


def test_two_shards_with_the_same_tensor_contradict_each_other(folder: Path) -> None:
    write_safetensors(folder / "model-a.safetensors", {"w": f32(2)})
    write_safetensors(folder / "model-b.safetensors", {"w": f32(3)})
    with pytest.raises(BadInput, match="duplicate tensor 'w'"):
        open_checkpoint(folder)


@pytest.mark.parametrize(("file", "size"), [("a.safetensors", 2), ("b.safetensors", 3)])
def test_the_index_decides_between_two_shards_with_the_same_tensor(folder: Path, file: str, size: int) -> None:
    write_safetensors(folder / "a.safetensors", {"w": f32(2), "x": f32(1)})
    write_safetensors(folder / "b.safetensors", {"w": f32(3), "y": f32(1)})
    index(folder, {"w": file, "x": "a.safetensors", "y": "b.safetensors"})
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors["w"].shape == (size,)
    assert file in checkpoint.warnings[0]


def test_a_folder_without_config_says_so(folder: Path) -> None:
    (folder / "config.json").unlink()
    write_safetensors(folder / "model.safetensors", {"w": f32(1)})
    with pytest.raises(InputMissing, match=r"config\.json"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' + "[" * 100_000, "\ufeff{}"])
def test_a_broken_config_is_refused_by_name(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"config\.json"):
        open_checkpoint(folder)


def test_a_config_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BadInput, match="not UTF-8"):
        open_checkpoint(folder)


def test_a_folder_without_weights_says_so(folder: Path) -> None:
    with pytest.raises(InputMissing, match="no weights"):
        open_checkpoint(folder)


def test_a_truncated_shard_is_named_with_its_bytes(folder: Path) -> None:
    path = write_safetensors(folder / "model.safetensors", {"w": f32(64, 64)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"model\.safetensors is truncated.*1 are missing"):
        open_checkpoint(folder)


def test_side_files_are_found_and_checked(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", {"w": f32(1)})
    (folder / "tokenizer_config.json").write_text('{"a": 1}')
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.json("tokenizer_config.json") == {"a": 1}
    assert checkpoint.json("nothing.json") is None
    for name in ("broken.json", "list.json"):
        with pytest.raises(BadInput, match=name):
            checkpoint.json(name)
