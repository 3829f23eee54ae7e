"""GGUF files written by the tests themselves, of every kind of key and of tensors that are easy to tell apart."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CODES = {"u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"),
          "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d")}  # fmt: skip
#: name -> number, weights and bytes of a block
_TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34)}
#: (type, value) of keys; "T[]" is an array
Keys = Mapping[str, tuple[str, Any]]
#: (name, sizes with the fastest first, type)
Tensors = Sequence[tuple[str, tuple[int, ...], str]]

KEYS: Keys = {
    "general.architecture": ("str", "toy"),
    "general.name": ("str", "Größe"),
    "toy.u8": ("u8", 255), "toy.i8": ("i8", -128), "toy.u16": ("u16", 65535), "toy.i16": ("i16", -2),
    "toy.u32": ("u32", 7), "toy.i32": ("i32", -7), "toy.f32": ("f32", 0.1), "toy.flag": ("bool", True),
    "toy.u64": ("u64", 1 << 63), "toy.i64": ("i64", -(1 << 63)), "toy.f64": ("f64", 0.1),
    "toy.numbers": ("i32[]", [1, -2, 3]), "toy.none": ("u32[]", []), "toy.flags": ("bool[]", [True, False]),
    "tokenizer.ggml.tokens": ("str[]", ["<s>", "</s>", "a", "a", ""]),
    "tokenizer.ggml.bos_token_id": ("u32", 0),
}  # fmt: skip
TENSORS: Tensors = (
    ("token_embd.weight", (32, 5), "F32"), ("a", (3,), "F32"), ("b", (5, 1), "F16"), ("c", (64, 2, 1, 1), "Q8_0"),
    ("d", (1, 1), "F32"), ("e", (32, 3, 2), "Q8_0"), ("f", (7,), "F16"),
)  # fmt: skip


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(kind: str, value: Any) -> bytes:
    if kind == "str":
        return struct.pack("<I", 8) + _text(value)
    if not kind.endswith("[]"):
        number, code = _CODES[kind]
        return struct.pack(f"<I{code}", number, value)
    kind = kind[:-2]
    if kind == "str":
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    number, code = _CODES[kind]
    return struct.pack(f"<IIQ{len(value)}{code}", 9, number, len(value), *value)


def write(path: Path, keys: Keys = KEYS, tensors: Tensors = TENSORS, alignment: int = 32) -> Path:
    """A file of these keys, each tensor filled with bytes that follow from its number."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(_text(key) + _value(*value) for key, value in keys.items())
    data = b""
    for number, (name, sizes, kind) in enumerate(tensors):
        type_, block, n_bytes = _TYPES[kind]
        head += _text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, type_, len(data))
        n = n_bytes // block if block == 1 else n_bytes
        for size in (sizes[0] // block, *sizes[1:]):
            n *= size
        data += bytes((37 * number + k * k // 3) % 251 for k in range(n))
        data += bytes(-len(data) % alignment)
    path.write_bytes(head + bytes(-len(head) % alignment) + data)
    return path
