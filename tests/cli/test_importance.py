"""--imatrix from the file to the bytes of the output."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np

import streamconv


def entries(path: Path, columns: dict[str, int]) -> dict[str, np.ndarray]:
    """Writes an importance matrix in the older format; gives its weights, random and different for every name."""
    weights = {name: np.random.default_rng(i).random(n, np.float32) for i, (name, n) in enumerate(columns.items())}
    file = struct.pack("<i", len(weights))
    for name, w in weights.items():
        file += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 0, w.size) + w.tobytes()
    path.write_bytes(file)
    return weights


def test_every_tensor_is_weighted_by_its_entry_and_others_are_not(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("convert", small, tmp_path / "plain.gguf", "--type", "F32").code == 0
    plain = gguf_reader.read(tmp_path / "plain.gguf").tensors
    names = ["blk.0.ffn_up.weight", "blk.1.ffn_up.weight", "blk.1.attn_q.weight"]
    weights = entries(tmp_path / "i.dat", {n: plain[n].ne[0] for n in names})
    options = ["--type", "Q4_0", "--pure", "--imatrix", tmp_path / "i.dat"]
    assert here("convert", small, tmp_path / "x.gguf", *options).code == 0
    found = gguf_reader.read(tmp_path / "x.gguf").tensors
    for name in [*names, "blk.0.attn_q.weight"]:
        values = np.frombuffer(plain[name].data, "<f4").reshape(plain[name].ne[::-1])
        expected = streamconv.quantize(values, "Q4_0", imatrix=weights.get(name))
        assert (found[name].type, found[name].data) == ("Q4_0", expected.tobytes()), name


def test_a_block_that_moves_down_keeps_its_own_entries(here: Any, small: Path, tmp_path: Path) -> None:
    assert here("convert", small, tmp_path / "plain.gguf", "--type", "F32").code == 0
    names = ["blk.0.ffn_up.weight", "blk.1.ffn_up.weight"]
    plain = gguf_reader.read(tmp_path / "plain.gguf").tensors
    entries(tmp_path / "i.dat", {n: plain[n].ne[0] for n in names})
    options = ["--type", "Q4_0", "--pure", "--imatrix", tmp_path / "i.dat"]
    whole, less = tmp_path / "whole.gguf", tmp_path / "less.gguf"
    assert here("convert", tmp_path / "plain.gguf", whole, *options).code == 0
    assert here("convert", tmp_path / "plain.gguf", less, *options, "--prune-layers", "0").code == 0
    moved, kept = gguf_reader.read(less).tensors, gguf_reader.read(whole).tensors
    assert moved[names[0]].data == kept[names[1]].data
