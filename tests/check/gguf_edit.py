"""A GGUF file as a dictionary that can be changed and written again, and small valid models made from nothing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

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
        head += b"".join(_text(key) + _value(value) for key, value in self.keys.items())
        data = b""
        for name, (shape, kind, raw) in self.tensors.items():
            head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], TYPES[kind].id, len(data))
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
    model.set(f"{arch}.{known.norm_key}", "FLOAT32", 1e-6)
    model.set(f"{arch}.rope.freq_base", "FLOAT32", 1e6)
    tokens = ["<unk>", "<bos>", "</s>", *(f"<0x{i:02X}>" for i in range(10)), *(f"t{i}" for i in range(27))]
    model.set("tokenizer.ggml.model", "STRING", "llama")
    model.set("tokenizer.ggml.tokens", "ARRAY", tokens, "STRING")
    model.set("tokenizer.ggml.scores", "ARRAY", [0.0] * 40, "FLOAT32")
    model.set("tokenizer.ggml.token_type", "ARRAY", [2, 3, 3] + [6] * 10 + [1] * 27, "INT32")
    for key, number in {"bos": 1, "eos": 2, "unknown": 0}.items():
        model.set(f"tokenizer.ggml.{key}_token_id", "UINT32", number)
    names = {
        "n_embd": 32,
        "n_vocab": 40,
        "n_ff": 64,
        "n_head": 4,
        "n_head_kv": 2,
        "head_k": 8,
        "k_gqa": 16,
        "v_gqa": 16,
        "n_rot": 8,
    }
    names |= dict.fromkeys(("n_expert", "n_ff_shexp", "longrope"), 0)
    for wanted in known.tensors:
        if not wanted.optional and wanted.applies(names):
            for layer in range(2) if wanted.per_layer else [0]:
                shape = wanted.shape(names)
                model.floats(wanted.name.replace("*", str(layer)), *(size or 1 for size in shape[::-1]))
    for layer in range(2):
        for which, rows in zip("qkv", (32, 16, 16), strict=True):
            model.floats(f"blk.{layer}.attn_{which}.weight", rows, 32)
    return model


def _text(plain: str) -> bytes:
    raw = plain.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    number, code = VALUE_TYPES[value.type]
    if value.type == "STRING":
        return struct.pack("<I", number) + _text(value.value)
    if value.type != "ARRAY":
        return struct.pack(f"<I{code}", number, value.value)
    elem, code = VALUE_TYPES[value.elem]
    head = struct.pack("<IIQ", number, elem, len(value.value))
    if value.elem == "STRING":
        return head + b"".join(_text(text) for text in value.value)
    return head + struct.pack(f"<{len(value.value)}{code}", *value.value)
