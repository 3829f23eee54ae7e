"""What a conversion allocates is bounded by --ram, however large a tensor is."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from peak_memory import peak_memory


def zeros(folder: Path, dtype: str, n_rows: int, n_cols: int) -> Path:
    """A checkpoint of one tensor of zeros, which takes no space on disk."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    size = n_rows * n_cols * {"F32": 4, "BF16": 2}[dtype]
    header = json.dumps({"w": {"dtype": dtype, "shape": [n_rows, n_cols], "data_offsets": [0, size]}}).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
@pytest.mark.parametrize(("dtype", "kind"), [("F32", "F16"), ("BF16", "F16"), ("BF16", "F32")])
def test_a_tensor_larger_than_the_budget_is_never_held(tmp_path: Path, dtype: str, kind: str) -> None:
    small, large = zeros(tmp_path / "a", dtype, 64, 2048), zeros(tmp_path / "b", dtype, 12288, 2048)
    ram = 12 << 20
    assert peak_memory(small, large, tmp_path, kind, ram) < ram, "bytes were allocated beyond --ram"
