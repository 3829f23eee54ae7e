"""Types that only safetensors files have are copied into a folder as they lie, those of less than a byte too."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from small_models import changed

import streamconv
from streamconv.errors import BadInput


def put(source: Path, dtype: str, shape: list[int], data: bytes) -> None:
    """Add a tensor ``x`` to the one file of ``source``."""
    path = source / "model.safetensors"
    raw = path.read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    header, end = json.loads(raw[8 : 8 + n]), len(raw) - 8 - n
    header["x"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + n :] + data)


@pytest.mark.parametrize(("dtype", "shape", "n_bytes"), [
    ("F4", [2, 8], 8), ("F4", [3, 2, 4], 12), ("F6_E2M3", [2, 8], 12), ("F6_E3M2", [4], 3), ("F8_E8M0", [5], 5),
    ("C64", [2, 3], 48), ("U16", [3], 6), ("BOOL", [2, 2], 4),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["auto", "f16"])
def test_bytes_and_shape_are_those_of_the_source(
    data: Path, tmp_path: Path, dtype: str, shape: list[int], n_bytes: int, kind: str
) -> None:
    source, stored = changed(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / "hf"), bytes(range(1, n_bytes + 1))
    put(source, dtype, shape, stored if dtype != "BOOL" else bytes(n_bytes))
    streamconv.convert(source, tmp_path / "out", type=kind, threads=1)
    raw = (tmp_path / "out" / "model.safetensors").read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    entry = json.loads(raw[8 : 8 + n])["x"]
    begin, end = entry["data_offsets"]
    assert entry["shape"] == shape
    if kind == "f16" and dtype.startswith("F8_"):
        assert entry["dtype"] == "F16"
    else:
        assert entry["dtype"] == dtype
        assert raw[8 + n + begin : 8 + n + end] == (stored if dtype != "BOOL" else bytes(n_bytes))


def test_rows_that_end_inside_a_byte_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    source = changed(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / "hf")
    put(source, "F4", [2, 3], bytes(np.arange(3, dtype=np.uint8)))
    with pytest.raises(BadInput, match="'x' of type F4"):
        streamconv.plan(source, tmp_path / "out")
