"""A GGUF file as a dictionary that can be changed and written again, and small valid models made from nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from streamconv.check.subject import Subject
from streamconv.check.table import architecture
from streamconv.metadata import VALUE_TYPES, Metadata, Value
from streamconv.quant.types import TYPES
from streamconv.sources import read_gguf

Tensor = tuple[tuple[int, ...], str, bytes]  # shape (slowest first), type name, data


class Gguf:
    """Keys and tensors of one file; change them, then ``write``."""

    def __init__(self) -> None:
        self.keys = Metadata()
        self.tensors: dict[str, Tensor] = {}

    @classmethod
    def load(cls, path: Path) -> Gguf:
        file, self = read_gguf(path), cls()
        self.keys = Metadata(dict(file.metadata.items()))
        for name, info in file.tensors.items():
            data = file.file.view(file.header.data_start + info.offset, info.n_bytes).tobytes()
            self.tensors[name] = (info.shape, info.type.name, data)
        return self

    def set(self, key: str, kind: str, plain: Any, elem: str = "") -> None:
        self.keys.values[key] = Value(kind, plain, elem)

    def floats(self, name: str, *shape: int) -> None:
        """Set an F32 tensor of small numbers."""
        values = np.random.default_rng(len(self.tensors)).standard_normal(shape).astype("<f4") * 0.1
        self.tensors[name] = (shape, "F32", values.tobytes())

    def write(self, path: Path, alignment: int = 32) -> Path:
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.keys))
        head += b"".join(text_bytes(key) + value_bytes(value) for key, value in self.keys.items())
        data = b""
        for name, (shape, kind, raw) in self.tensors.items():
            head += text_bytes(name) + struct.pack(
                f"<I{len(shape)}QIQ", len(shape), *shape[::-1], TYPES[kind].id, len(data)
            )
            data += raw + bytes(-len(raw) % alignment)
        path.write_bytes(head + bytes(-len(head) % alignment) + data)
        return path


def tiny(arch: str) -> Gguf:
    """A valid model of 2 layers and 40 tokens, with all tensors that the table requires."""
    known = architecture(arch)
    assert known is not None
    model = Gguf()
    model.set("general.architecture", "STRING", arch)
    sizes = {"block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64}
    heads = {
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 8,
        "attention.value_length": 8,
    }
    for key, number in {**sizes, **heads, "rope.dimension_count": 8}.items():
        model.set(f"{arch}.{key}", "UINT32", number)
    if "attention.sliding_window" in known.usual:
        model.set(f"{arch}.attention.sliding_window", "UINT32", 32)
    for key in known.keys:
        if "epsilon" in key.names[0]:
            model.set(f"{arch}.{key.names[0]}", "FLOAT32", 1e-6)
    model.set(f"{arch}.rope.freq_base", "FLOAT32", 1e6)
    tokens = ["<unk>", "<bos>", "</s>", *(f"<0x{i:02X}>" for i in range(10)), *(f"t{i}" for i in range(27))]
    model.set("tokenizer.ggml.model", "STRING", "llama")
    model.set("tokenizer.ggml.tokens", "ARRAY", tokens, "STRING")
    model.set("tokenizer.ggml.scores", "ARRAY", [0.0] * 40, "FLOAT32")
    model.set("tokenizer.ggml.token_type", "ARRAY", [2, 3, 3] + [6] * 10 + [1] * 27, "INT32")
    for key, number in {"bos": 1, "eos": 2, "unknown": 0}.items():
        model.set(f"tokenizer.ggml.{key}_token_id", "UINT32", number)
    subject = Subject(model.keys, {"any": None})  # type: ignore[dict-item]
    for wanted in known.tensors:
        for names in [subject.scope(layer) for layer in range(2 if wanted.per_layer else 1)]:
            if wanted.applies(names) and wanted.required(names):
                shape = wanted.shape(names)
                model.floats(wanted.name.replace("*", str(names.layer)), *(size or 1 for size in shape[::-1]))
    return model


def text_bytes(plain: str) -> bytes:
    raw = plain.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value: Value) -> bytes:
    number, code = VALUE_TYPES[value.type]
    if value.type == "STRING":
        return struct.pack("<I", number) + text_bytes(value.value)
    if value.type != "ARRAY":
        return struct.pack(f"<I{code}", number, value.value)
    elem, code = VALUE_TYPES[value.elem]
    head = struct.pack("<IIQ", number, elem, len(value.value))
    if value.elem == "STRING":
        return head + b"".join(text_bytes(text) for text in value.value)
    return head + struct.pack(f"<{len(value.value)}{code}", *value.value)
