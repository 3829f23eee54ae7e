"""InternLM 2's vocabulary: SentencePiece's pieces, of which one is a NUL and some are unused, and what is added to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...sources import sentencepiece
from .added import ADDED_SCORE
from .files import TokenizerFiles
from .spm import read_spm
from .vocabulary import TokenType, Vocabulary

#: stands for a NUL, which C programs take for the end of a text
_NUL_TEXT = "🐉"


def read_internlm2(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, _pre: str | None
) -> Vocabulary:
    """The vocabulary of ``tokenizer.model`` of InternLM 2 (BadInput: a file is damaged)."""
    vocabulary = read_spm(files, config, vocab_size, _overlay)
    path = Path(vocabulary.source)
    settings = sentencepiece.read_settings(files.bytes(path.name) or b"", path)
    vocabulary.more.boolean("tokenizer.ggml.add_space_prefix", settings.add_prefix)
    return vocabulary


def _overlay(files: TokenizerFiles, vocabulary: Vocabulary) -> None:
    for index, text in enumerate(vocabulary.texts):
        if text == "\0":
            vocabulary.texts[index] = _NUL_TEXT
        elif text is not None and text.startswith("[UNUSED"):
            vocabulary.types[index] = TokenType.UNUSED
    listed = ((index, text, False) for text, index in files.listed_tokens.items())
    others = ((token.id, token.text, token.special) for token in (*files.declared_tokens, *files.added_tokens))
    for index, text, special in (*listed, *others):
        if index < len(vocabulary):
            kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
            vocabulary.put(index, text, kind, ADDED_SCORE)
        else:
            vocabulary.warnings.append(f"the added token {text!r} is left out: the model has no row for its id {index}")
