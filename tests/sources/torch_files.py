"""Builders of torch checkpoints without torch: pickles put together from opcodes, zip archives and legacy streams."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np

#: safetensors' dtype -> numpy's, and the class of torch's storage
WORDS = {
    "F32": ("<f4", "FloatStorage"), "F64": ("<f8", "DoubleStorage"), "F16": ("<f2", "HalfStorage"),
    "BF16": ("<u2", "BFloat16Storage"), "I64": ("<i8", "LongStorage"), "I32": ("<i4", "IntStorage"),
    "I16": ("<i2", "ShortStorage"), "I8": ("i1", "CharStorage"), "U8": ("u1", "ByteStorage"), "BOOL": ("?", "BoolStorage"),
}  # fmt: skip
PROTOCOL = b"\x80\x02"
HOOKS_AND_GRAD = 2


class Code(bytes):
    """Opcodes that leave one value on the stack."""


def code(value: Any) -> Code:
    """Opcodes that make ``value``."""
    if isinstance(value, Code):
        return value
    if value is None or isinstance(value, bool):
        return Code({None: b"N", True: b"\x88", False: b"\x89"}[value])
    if isinstance(value, int):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return Code(b"\x8b" + struct.pack("<i", len(raw)) + raw if len(raw) > 255 else bytes([0x8A, len(raw)]) + raw)
    if isinstance(value, float):
        return Code(b"G" + struct.pack(">d", value))
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return Code(b"X" + struct.pack("<I", len(raw)) + raw)
    if isinstance(value, bytes):
        return Code(b"B" + struct.pack("<I", len(value)) + value)
    if isinstance(value, tuple):
        return Code(b"(" + b"".join(map(code, value)) + b"t")
    if isinstance(value, list):
        return Code(b"](" + b"".join(map(code, value)) + b"e")
    assert isinstance(value, dict), value
    return Code(b"}(" + b"".join(code(k) + code(v) for k, v in value.items()) + b"u")


def named(module: str, name: str) -> Code:
    return Code(f"c{module}\n{name}\n".encode())


def call(module: str, name: str, *arguments: Any) -> Code:
    return Code(named(module, name) + code(arguments) + b"R")


def storage(kind: str, key: str, numel: Any, *view: Any) -> Code:
    module = "torch.storage" if kind == "UntypedStorage" else "torch"
    return Code(code(("storage", named(module, kind), key, "cpu", numel, *view)) + b"Q")


def tensor(stored: Code, size: Any, stride: Any = None, offset: Any = 0, dtype: str | None = None) -> Code:
    """A tensor as torch describes it, by default contiguous; with ``dtype`` as it does for types without a storage class."""
    if stride is None:
        stride = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
    hooks = call("collections", "OrderedDict")
    name = "_rebuild_tensor_v2" if dtype is None else "_rebuild_tensor_v3"
    last = () if dtype is None else (named("torch", dtype),)
    return call("torch._utils", name, stored, offset, size, stride, False, hooks, *last)


def program(value: Any) -> bytes:
    return PROTOCOL + code(value) + b"."


def archive(
    pickle: bytes,
    storages: dict[str, bytes] | None = None,
    root: str = "archive",
    byteorder: bytes | None = b"little",
    method: int = zipfile.ZIP_STORED,
    extra: dict[str, bytes] | None = None,
) -> bytes:
    """A zip file as torch writes it, but for padding and checks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        target.writestr(f"{root}/data.pkl", pickle)
        if byteorder is not None:
            target.writestr(f"{root}/byteorder", byteorder)
        for key, raw in (storages or {}).items():
            target.writestr(f"{root}/data/{key}", raw)
        target.writestr(f"{root}/version", b"3\n")
        for name, raw in (extra or {}).items():
            target.writestr(name, raw)
    return buffer.getvalue()


def checkpoint(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """An archive of these arrays of words, each in a storage of its own."""
    described, storages = {}, {}
    for i, (name, (dtype, words)) in enumerate(tensors.items()):
        described[name] = tensor(storage(WORDS[dtype][1], str(i), words.size), words.shape)
        storages[str(i)] = words.tobytes()
    return archive(program(described), storages)


def stream(
    pickle: bytes, storages: list[tuple[str, int, bytes]], little: bool = True, magic: int | None = None
) -> bytes:
    """A legacy file; ``storages`` are key, count of numbers and bytes."""
    head = program(0x1950A86A20F9469CFC6C if magic is None else magic) + program(1001)
    head += program(
        {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    )
    keys = program([key for key, _, _ in storages])
    return head + pickle + keys + b"".join(struct.pack("<q", n) + raw for _, n, raw in storages)
