"""The calibration text that comes with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamconv.text
from streamconv.sources.gguf import read_gguf
from streamconv.text import default_text, open_tokenizer

SOURCE = Path(streamconv.text.__file__).parent / "data" / "calibration.txt"


def test_the_packed_text_is_the_one_to_read() -> None:
    assert default_text() == SOURCE.read_bytes()
    assert default_text().decode().endswith("\n")
    assert 60_000 < len(default_text()) < 90_000


def test_nothing_in_it_is_written_twice() -> None:
    lines = [line for line in default_text().decode().splitlines() if len(line) > 60]
    assert len(lines) > 200
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("script", "least"),
    [
        ("\u0400-\u04ff", 2000), ("\u0600-\u06ff", 700), ("\u0900-\u097f", 700), ("\u3040-\u30ff", 300), ("\u4e00-\u9fff", 700),
        ("\uac00-\ud7af", 400), ("äöüß", 40), ("éèêç", 40), ("ñáíó¿", 40), ("ğışİ", 40), ("ąęłżś", 40), ("ạảấđơ", 40),
    ],
)  # fmt: skip
def test_it_has_text_of_every_script_and_language(script: str, least: int) -> None:
    assert len(re.findall(f"[{script}]", default_text().decode())) >= least


def test_nothing_in_it_is_a_control_token(reference: Path) -> None:
    text = default_text()
    assert not re.search(
        rb"<\||\|>|<s>|</s>|<(unk|pad|bos|eos|think|tool_call|start_of_turn)>|\[/?INST\]|\[(CLS|SEP|MASK)\]", text
    )
    control: set[str] = set()
    for path in sorted((reference / "golden" / "gguf").glob("*/f32.gguf")):
        found = read_gguf(path).metadata
        if found.get("tokenizer.ggml.token_type") is not None:
            tokens, types = found.get("tokenizer.ggml.tokens"), found.get("tokenizer.ggml.token_type")
            control |= {token for token, kind in zip(tokens, types, strict=True) if kind == 3}
    assert len(control) > 20
    assert [token for token in control if token.encode() in text] == []


def test_a_small_vocabulary_cuts_it_into_more_than_40_chunks(data: Path) -> None:
    from streamconv.conversion import open_runnable

    model, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    keys = {key: value.value for key, value in model.metadata.items()}
    tokenizer = open_tokenizer(keys)
    tokens = tokenizer.encode(default_text())
    assert tokens == tokenizer.encode(default_text(), parse_special=True)
    assert len(tokens) > 40 * 512
