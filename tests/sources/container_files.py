"""Builders of small safetensors and GGUF files, valid or broken on purpose."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

VALUE_CODES = {"UINT32": (4, "I"), "INT32": (5, "i"), "FLOAT32": (6, "f"), "BOOL": (7, "?"), "UINT16": (2, "H")}


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_safetensors(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> Path:
    """Write arrays of raw words under the given dtype names."""
    header, data = {}, b""
    for name, (dtype, values) in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    path.write_bytes(safetensors_bytes(header, data))
    return path


def f32(*shape: int, seed: int = 0) -> tuple[str, np.ndarray]:
    return "F32", np.random.default_rng(seed).standard_normal(shape).astype("<f4")


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: str, plain: Any) -> bytes:
    """A typed GGUF value; ``kind`` may be STRING, STRINGS (an array), ``INT32S`` or a scalar type."""
    if kind == "STRING":
        return struct.pack("<I", 8) + text(plain)
    if kind == "STRINGS":
        return struct.pack("<IIQ", 9, 8, len(plain)) + b"".join(text(t) for t in plain)
    if kind.endswith("S"):
        number, code = VALUE_CODES[kind[:-1]]
        return struct.pack(f"<IIQ{len(plain)}{code}", 9, number, len(plain), *plain)
    number, code = VALUE_CODES[kind]
    return struct.pack(f"<I{code}", number, plain)


def tensor_info(name: str | bytes, ne: tuple[int, ...], type_id: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, type_id, offset)


def gguf_bytes(
    pairs: Sequence[tuple[str, bytes]],
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs))
    head += b"".join(text(key) + raw for key, raw in pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data
