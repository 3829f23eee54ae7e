"""Arctic's vocabulary: SentencePiece's pieces, some of which tokenizer_config.json renames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .files import TokenizerFiles
from .spm import read_spm
from .vocabulary import UNUSED_SCORE, TokenType, Vocabulary


def read_arctic(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of ``tokenizer.model`` of Arctic. Errors as ``read_spm``."""
    return read_spm(files, config, size, _renamed)


def _renamed(files: TokenizerFiles, vocabulary: Vocabulary) -> None:
    unknown = files.special_text("unk")
    for token in files.declared_tokens:
        if token.id >= len(vocabulary):
            continue
        if not token.special:
            vocabulary.put(token.id, token.text, TokenType.USER_DEFINED, UNUSED_SCORE)
        else:
            kind = TokenType.UNKNOWN if token.text == unknown else TokenType.CONTROL
            vocabulary.put(token.id, token.text, kind, 0.0)
