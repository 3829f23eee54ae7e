"""A GGUF version 3 reader of the tests' own, so that the writer is not judged by the code beside it."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KINDS = (
    "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64", "INT64",
    "FLOAT64",
)  # fmt: skip
_NUMPY = {"UINT8": "u1", "INT32": "<i4", "UINT32": "<u4", "UINT64": "<u8", "FLOAT32": "<f4", "BOOL": "?"}
#: type number -> (name, weights per block, bytes per block)
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    39: ("MXFP4", 32, 17),
}  # fmt: skip

#: Keys the reference leaves to a loader's guess, and our own.
_EXTRA = re.compile(
    r"streamconv\.job|tokenizer\.ggml\.((bos|eos|eot|eom|unk|pad|sep|mask|fim_\w+)_token_id|add_\w+)"
    r"|gemma3\.rope\.local_freq_base|gemma3\.rope\.freq_base_swa"
)


@dataclass(frozen=True)
class Tensor:
    """Dimensions in file order (fastest first), type, offset in the data section, and the bytes."""

    ne: tuple[int, ...]
    type: str
    offset: int
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Gguf:
    """A whole file: ``keys`` maps to ``(type, value)``, an array's value being ``(element type, list)``."""

    keys: dict[str, tuple[str, Any]]
    tensors: dict[str, Tensor]


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 4

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.raw, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        n = self.number("Q")
        self.at += n
        return self.raw[self.at - n : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            elem, n = self.number("I"), self.number("Q")
            return _KINDS[elem], [self.value(elem) for _ in range(n)]
        return self.number(_SCALARS[kind])


def read(path: Path) -> Gguf:
    """Read all of the file ``path``; fails on anything that is out of place."""
    raw = path.read_bytes()
    assert raw[:4] == b"GGUF"
    c = _Cursor(raw)
    assert c.number("I") == 3
    n_tensors, n_keys = c.number("Q"), c.number("Q")
    keys: dict[str, tuple[str, Any]] = {}
    for _ in range(n_keys):
        key = c.text()
        assert key not in keys, f"{key} is there twice"
        kind = c.number("I")
        keys[key] = _KINDS[kind], c.value(kind)
    infos = []
    for _ in range(n_tensors):
        name, dims = c.text(), c.number("I")
        infos.append((name, tuple(c.number("Q") for _ in range(dims)), _TYPES[c.number("I")], c.number("Q")))
    start = -(-c.at // 32) * 32
    tensors, expected = {}, 0
    for name, ne, (type_name, block, block_bytes), offset in infos:
        assert offset == expected, f"{name} leaves a hole"
        size = math.prod(ne) // block * block_bytes
        data = raw[start + offset : start + offset + size]
        assert len(data) == size, f"{name} runs past the end"
        tensors[name] = Tensor(ne, type_name, offset, data)
        expected = offset + -(-size // 32) * 32
    assert len(raw) == start + expected, "the last tensor is padded like the others, and nothing follows"
    return Gguf(keys, tensors)


def array_sha256(elem: str, values: list[Any]) -> str:
    """sha256 over little-endian elements; strings with their u64 length in front."""
    if elem == "STRING":
        parts = (text.encode() for text in values)
        return hashlib.sha256(b"".join(struct.pack("<Q", len(b)) + b for b in parts)).hexdigest()
    return hashlib.sha256(np.array(values, _NUMPY[elem]).tobytes()).hexdigest()


def differences(found: Gguf, dump: dict[str, Any], free: tuple[str, ...] = ()) -> list[str]:
    """How ``found`` departs from a recorded ``dump`` of the reference's file; empty when it does not.

    Parameters
    ----------
    free : keys that may differ
    """
    told = [d for key, want in dump["kv"].items() if key not in free for d in _key_differences(found, key, want)]
    told += [f"extra key {k}" for k in found.keys if k not in dump["kv"] and k not in free and not _EXTRA.fullmatch(k)]
    shared = [key for key in found.keys if key in dump["kv"]]
    if not free and shared != dump["kv_order"]:
        told.append(f"keys are ordered {shared}")
    wanted = [(t["name"], tuple(t["ne"]), t["type"], t["offset"], t["sha256"]) for t in dump["tensors"]]
    got = [(name, t.ne, t.type, t.offset, t.sha256) for name, t in found.tensors.items()]
    told += [f"tensor {g} for {w}" for g, w in zip(got, wanted, strict=False) if g != w]
    if len(got) != len(wanted):
        told.append(f"{len(got)} tensors, {len(wanted)} wanted")
    return told


def _key_differences(found: Gguf, key: str, want: dict[str, Any]) -> Iterator[str]:
    if key not in found.keys:
        yield f"{key} is missing"
        return
    kind, value = found.keys[key]
    if kind == "ARRAY":
        elem, values = value
        if key == "tokenizer.ggml.scores" and want["sha256"] == array_sha256(elem, [-1000.0] * want["n"]):
            values = [-1000.0] * len(values)  # the reference gives up the order of merges there
        got = {"elem": elem, "n": len(values), "sha256": array_sha256(elem, values)}
        got |= {"value": values} if "value" in want else {}
        want = {k: v for k, v in want.items() if k in got}
        got = {k: v for k, v in got.items() if k in want}
        if got != want:
            yield f"{key} is {got}, not {want}"
    elif kind != want["type"]:
        yield f"{key} is {kind}, not {want['type']}"
    elif (np.float32(value) != np.float32(want["value"])) if kind == "FLOAT32" else value != want["value"]:
        yield f"{key} is {value!r}, not {want['value']!r}"
