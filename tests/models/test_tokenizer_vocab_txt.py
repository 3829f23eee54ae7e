"""Old BERT checkpoints have their vocabulary as vocab.txt alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamconv.models.tokenizers import BERT, Tokenizer, tokenizer_metadata
from streamconv.models.tokenizers.vocab_txt import with_tokenizer_json
from streamconv.sources.checkpoint import Checkpoint

NAMES = ("pad", "unk", "cls", "sep", "mask")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s", "a"]


def read(folder: Path, words: list[str], **stated: Any) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**{f"{n}_token": f"[{n.upper()}]" for n in NAMES}, **stated})
    )
    return tokenizer_metadata(Checkpoint(folder, {}, {}, ()), {"vocab_size": len(words)}, BERT, pre="bert-bge")


def test_a_line_is_a_token_and_special_ones_are_control(tmp_path: Path) -> None:
    found = read(tmp_path, WORDS)
    assert list(found.metadata.get("tokenizer.ggml.tokens")) == [*WORDS[:5], "\u2581the", "s", "\u2581a"]
    assert list(found.metadata.get("tokenizer.ggml.token_type")) == [3] * 5 + [1] * 3


def test_special_tokens_that_loaders_take_for_others_are_told(tmp_path: Path) -> None:
    (warning,) = read(tmp_path, WORDS).warnings
    assert "unknown 1, not 100" in warning
    usual = [f"w{n}" for n in range(104)]
    for name, index in (("PAD", 0), ("UNK", 100), ("CLS", 101), ("SEP", 102), ("MASK", 103)):
        usual[index] = f"[{name}]"
    assert read(tmp_path, usual).warnings == []


def test_a_tokenizer_json_is_taken_before_it(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    checkpoint = Checkpoint(tmp_path, {}, {}, ())
    assert with_tokenizer_json(checkpoint) is checkpoint


USUAL = ["[PAD]", *(f"w{n}" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def keys(found: Tokenizer) -> dict[str, Any]:
    return {key.rpartition(".")[2]: value.value for key, value in found.metadata.items() if ".normalizer." in key}


def test_a_vocabulary_that_keeps_capitals_is_told_of_where_no_key_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, USUAL, do_lower_case=False)
    assert keys(found) == {}
    assert any("lowercase false, not true" in note for note in found.warnings)


@pytest.mark.parametrize(("normalizer", "expected", "told"), [
    ({"lowercase": False, "strip_accents": False}, {"lowercase": False, "strip_accents": False}, ""),
    ({"lowercase": False, "strip_accents": None}, {"lowercase": False}, "keeps accents"),
    ({"lowercase": True, "strip_accents": None}, {"lowercase": True}, ""),
    ({"lowercase": True, "strip_accents": False}, {"lowercase": True, "strip_accents": False}, ""), ({}, {}, ""),
    (None, {}, "keeps capitals and accents"),
])  # fmt: skip
def test_what_tokenizer_json_does_to_letters_is_written(
    tmp_path: Path, normalizer: Any, expected: dict[str, bool], told: str
) -> None:
    read(tmp_path, USUAL)
    made = with_tokenizer_json(Checkpoint(tmp_path, {}, {}, ())).side_bytes("tokenizer.json")
    assert made is not None
    head = json.loads(made)
    head["normalizer"] = normalizer if normalizer is None else {"type": "BertNormalizer", **normalizer}
    (tmp_path / "tokenizer.json").write_text(json.dumps(head))
    found = tokenizer_metadata(Checkpoint(tmp_path, {}, {}, ()), {"vocab_size": len(USUAL)}, BERT, pre="bert-bge")
    assert keys(found) == expected
    notes = [note for note in found.warnings if "accents" in note]
    assert len(notes) == bool(told)
    assert told in "".join(notes)
