"""XVERSE's vocabulary: the pieces of a tokenizer.json as they are, without scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sources.sentencepiece import BYTE_PIECE
from .added import completed
from .files import TokenizerFiles
from .json_model import model_ids, read_model
from .vocabulary import TokenType, Vocabulary, check_room, token_count


def read_xverse(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """The vocabulary of a tokenizer.json of XVERSE.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path, model = read_model(files, "BPE")
    ids = model_ids(model, path)
    added, warnings = completed(files, ids, token_count(config, size, 0, "vocab_size"))
    needed = max((*ids.values(), *added)) + 1
    n_tokens = token_count(config, size, needed, "vocab_size")
    check_room(path, needed, n_tokens)
    vocabulary = Vocabulary.empty("llama", "default", str(path), n_tokens)
    vocabulary.warnings += warnings
    for text, index in {**ids, **{token.text: n for n, token in added.items()}}.items():
        kind = TokenType.NORMAL
        if BYTE_PIECE.fullmatch(text):
            kind = TokenType.BYTE
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        elif text == "\0":
            text, kind = "<b'\\x00'>", TokenType.BYTE
        vocabulary.put(index, text, kind)
    return vocabulary
