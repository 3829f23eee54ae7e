"""T5's SentencePiece models: what their settings become, and under which names they lie."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from streamconv.errors import BadInput
from streamconv.models.tokenizers import T5, Tokenizer, tokenizer_metadata
from streamconv.sources.checkpoint import Checkpoint
from streamconv.sources.sentencepiece import SpmSettings, read_settings

WORDS = (("<pad>", 3), ("</s>", 3), ("<unk>", 2), ("\u2581a", 1))


def message(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2, len(data)]) + data


def number(field: int, value: int) -> bytes:
    return bytes([field << 3, value])


def model(trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    pieces = (message(1, t.encode()) + b"\x15" + struct.pack("<f", -1.0) + number(3, kind) for t, kind in WORDS)
    return b"".join(message(1, piece) for piece in pieces) + message(2, trainer) + message(3, normalizer)


def read(folder: Path, data: bytes, name: str = "spiece.model") -> Tokenizer:
    (folder / name).write_bytes(data)
    return tokenizer_metadata(Checkpoint(folder, {}, {}, ()), {"vocab_size": 6}, T5)


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
def test_a_unigram_model_states_how_it_takes_a_text_apart(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, model(number(3, 1), message(2, b"\x01\x02") + number(3, 1) + number(4, 0)), name).metadata
    assert found.get("tokenizer.ggml.model") == "t5"
    assert list(found.get("tokenizer.ggml.tokens")) == [*(text for text, _ in WORDS), "[PAD4]", "[PAD5]"]
    assert found.get("tokenizer.ggml.add_space_prefix") is True
    assert found.get("tokenizer.ggml.remove_extra_whitespaces") is False
    assert list(found.get("tokenizer.ggml.precompiled_charsmap")) == [1, 2]


def test_a_model_that_merges_pairs_is_written_like_others(tmp_path: Path) -> None:
    found = read(tmp_path, model(number(3, 2))).metadata
    assert found.get("tokenizer.ggml.model") == "llama"
    assert found.get("tokenizer.ggml.remove_extra_whitespaces") is None


def test_settings_that_are_not_stated_are_those_of_the_library() -> None:
    assert read_settings(model(), Path("x")) == SpmSettings(True, True, True, b"")
    with pytest.raises(BadInput, match="damaged"):
        read_settings(message(3, b"\x12\x09abc"), Path("x"))
