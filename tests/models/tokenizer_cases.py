"""Comparing tokenizer metadata with what llama.cpp's converter wrote, and making small tokenizers to read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamconv.metadata import Metadata, Value
from streamconv.models import tokenizers
from streamconv.models.tokenizers import Tokenizer, TokenizerRule, tokenizer_metadata
from streamconv.sources.checkpoint import Checkpoint

_NUMPY = {"INT32": "<i4", "FLOAT32": "<f4"}


def checkpoint(folder: Path) -> Checkpoint:
    config = folder / "config.json"
    return Checkpoint(folder, {}, json.loads(config.read_text()) if config.exists() else {}, ())


def read(folder: Path, rule: TokenizerRule | str, pre: str | None = None, **options: Any) -> Tokenizer:
    found = checkpoint(folder)
    merged = {**found.config, **found.config.get("text_config", {})}
    chosen = getattr(tokenizers, rule) if isinstance(rule, str) else rule
    return tokenizer_metadata(found, merged, chosen, pre=pre, **options)


def array_sha256(elem: str, values: Any) -> str:
    """sha256 over little-endian elements; strings with their u64 length in front."""
    if elem == "STRING":
        parts = (text.encode() for text in values)
        return hashlib.sha256(b"".join(struct.pack("<Q", len(b)) + b for b in parts)).hexdigest()
    return hashlib.sha256(np.array(values, _NUMPY[elem]).tobytes()).hexdigest()


def describe(value: Value) -> dict[str, Any]:
    """A value as the reference dumps spell it."""
    if value.type != "ARRAY":
        return {"type": value.type, "value": value.value}
    shown = {"type": "ARRAY", "elem": value.elem, "n": len(value.value)}
    return shown | {"sha256": array_sha256(value.elem, value.value)}


def assert_holds(metadata: Metadata, expected: Mapping[str, Mapping[str, Any]], ordered: bool = True) -> None:
    """Every expected key is there with type and value, in that order; others come after them."""
    found = {key: describe(value) for key, value in metadata.items()}
    for key, want in expected.items():
        assert key in found, f"{key} is missing"
        if key.endswith(".scores") and want["sha256"] == array_sha256("FLOAT32", [-1000.0] * want["n"]):
            assert found[key]["n"] == want["n"]  # the reference gives up the order of merges there
            continue
        assert found[key] == {k: v for k, v in want.items() if k in found[key]}, key
    if ordered:
        assert list(found)[: len(expected)] == list(expected)


def bpe_files(folder: Path, **changes: Any) -> Path:
    """A byte-level BPE tokenizer of a few tokens; ``changes`` are merged into tokenizer.json (None removes)."""
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(4, "<|end|>")],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]]},
    }
    whole |= changes
    (folder / "tokenizer.json").write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))
    return folder


def added(index: int, text: str, special: bool = True, normalized: bool = False) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": index, "content": text, **flags, "normalized": normalized, "special": special}


def spm_file(folder: Path, *pieces: tuple[str, float, int]) -> Path:
    """A tokenizer.model of ``(text, score, type)`` pieces."""

    def field(number: int, body: bytes) -> bytes:
        assert len(body) < 128
        return bytes([number << 3 | 2, len(body)]) + body

    data = b""
    for text, score, kind in pieces:
        data += field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))
    (folder / "tokenizer.model").write_bytes(data)
    return folder


def write_json(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))
