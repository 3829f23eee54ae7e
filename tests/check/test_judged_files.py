"""A GGUF file that is written again: what it lacked is told, what loaders would not take any more is refused."""

from __future__ import annotations

from pathlib import Path

import gguf_reader
from gguf_edit import tiny

import streamconv


def _told(source: Path, out: Path, **options: object) -> list[str]:
    plan = streamconv.plan(source, out, type="F16", **options)
    return [w for w in plan["warnings"] if "no runtime will load the output" in w]


def test_a_file_that_loads_has_nothing_to_be_told_of(tmp_path: Path) -> None:
    source = tiny("llama").write(tmp_path / "a.gguf")
    assert _told(source, tmp_path / "x.gguf") == []
    assert _told(source, tmp_path / "x.gguf", prune_layers=(0,)) == []


def test_what_a_file_lacks_is_told_and_not_refused(tmp_path: Path) -> None:
    file = tiny("llama")
    del file.tensors["blk.1.ffn_up.weight"]
    file.keys.remove("llama.attention.layer_norm_rms_epsilon")
    told = _told(file.write(tmp_path / "a.gguf"), tmp_path / "x.gguf")
    assert any("'blk.1.ffn_up.weight' is missing" in text for text in told)
    assert any("llama.attention.layer_norm_rms_epsilon is missing" in text for text in told)


def test_what_a_file_lacks_in_a_layer_that_moves_is_told(tmp_path: Path) -> None:
    file = tiny("llama")
    del file.tensors["blk.1.ffn_up.weight"]
    (told,) = _told(file.write(tmp_path / "a.gguf"), tmp_path / "x.gguf", prune_layers=(0,))
    assert "'blk.0.ffn_up.weight' is missing" in told


def test_shapes_that_no_loader_takes_are_told(tmp_path: Path) -> None:
    file = tiny("llama")
    shape, kind, data = file.tensors["blk.0.ffn_norm.weight"]
    file.tensors["blk.0.ffn_norm.weight"] = (shape[0] // 2,), kind, data[: len(data) // 2]
    (told,) = _told(file.write(tmp_path / "a.gguf"), tmp_path / "x.gguf")
    assert "wrong shape" in told


def test_numbers_of_layers_go_with_the_layers_that_are_left_out(tmp_path: Path) -> None:
    file = tiny("llama")
    file.set("llama.attention.head_count_kv", "ARRAY", [2, 2], "INT32")
    source = file.write(tmp_path / "a.gguf")
    assert _told(source, tmp_path / "x.gguf") == []
    (path,) = streamconv.convert(source, tmp_path / "x.gguf", type="F16", prune_layers=(0,))
    assert gguf_reader.read(path).keys["llama.attention.head_count_kv"] == ("ARRAY", ("INT32", [2]))


def test_who_overrides_a_key_is_told_what_comes_of_it(tmp_path: Path) -> None:
    source = tiny("llama").write(tmp_path / "a.gguf")
    told = _told(source, tmp_path / "x.gguf", override_kv=("llama.block_count=int:3",))
    assert any("blk.2." in text for text in told)


def test_an_unknown_architecture_is_said_to_be_unknown(tmp_path: Path) -> None:
    file = tiny("llama")
    file.keys.string("general.architecture", "brand-new")
    for key in [key for key, _ in file.keys.items() if key.startswith("llama.")]:
        file.keys.add(key.replace("llama", "brand-new"), file.keys.values.pop(key))
    warnings = streamconv.plan(file.write(tmp_path / "a.gguf"), tmp_path / "x.gguf", type="F16")["warnings"]
    assert any("'brand-new' is not one that check knows" in text for text in warnings)
