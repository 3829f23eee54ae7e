"""Phi 3's vocabulary: SentencePiece's pieces and what is added to them, in an order of its own and with the texts as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadInput
from .added import ADDED_SCORE
from .files import TokenizerFiles
from .spm import read_spm
from .vocabulary import TokenType, Vocabulary


def read_phi3(files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of ``tokenizer.model`` of Phi 3.

    Raises
    ------
    BadInput : a file is damaged, or an added token has an id beyond the vocabulary
    """
    return read_spm(files, config, vocab_size, _overlay)


def _overlay(files: TokenizerFiles, vocabulary: Vocabulary) -> None:
    for name, index, text, special in _added(files):
        if index >= len(vocabulary):
            raise BadInput(
                f"{files.called(name)}: token {text!r} has id {index}, beyond the vocabulary of {len(vocabulary)}",
                "The tokenizer belongs to another model, or vocab_size in config.json is wrong.",
            )
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        vocabulary.put(index, text, kind, ADDED_SCORE)


def _added(files: TokenizerFiles) -> Iterator[tuple[str, int, str, bool]]:
    """File, id, text and whether it is special; what comes later goes before what came earlier."""
    for text, index in files.listed_tokens.items():
        yield "added_tokens.json", index, text, False
    for token in files.declared_tokens:
        yield "tokenizer_config.json", token.id, token.text, token.special
    for token in files.added_tokens:
        yield "tokenizer.json", token.id, token.text, token.special
