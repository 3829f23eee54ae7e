"""Gemma 4's vocabulary: SentencePiece's pieces with merges, which runtimes follow instead of scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadInput
from ...sources.sentencepiece import BYTE_PIECE
from .added import ADDED_SCORE, completed
from .bpe import packed_merges
from .files import TokenizerFiles, token_text
from .json_model import model_ids, read_model
from .vocabulary import TokenType, Vocabulary, check_room, token_count

#: marks of channels and tools, which a text that runtimes show has
_VISIBLE = frozenset(
    ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
)


def read_gemma4(
    files: TokenizerFiles, config: Mapping[str, Any], vocab_size: int | None, _pre: str | None
) -> Vocabulary:
    """The vocabulary of a tokenizer.json of Gemma 4.

    Raises
    ------
    BadInput : the file is damaged or has more tokens than the model
    """
    path, model = read_model(files, "BPE")
    ids = model_ids(model, path)
    limit = token_count(config, vocab_size, 0, "vocab_size")
    added, warnings = completed(files, ids, limit)
    n_needed = max((*ids.values(), *added)) + 1
    check_room(path, n_needed, limit or n_needed)
    vocabulary = Vocabulary.empty("gemma4", "", str(path), limit or n_needed, ADDED_SCORE)
    vocabulary.warnings += warnings
    vocabulary.merges = packed_merges(model.get("merges"), path)
    special = {*files.special_texts(), *_named(files)}
    texts = {index: text for text, index in ids.items()}
    if len(texts) < len(ids):
        raise BadInput(f"{path}: {len(ids)} tokens share {len(texts)} ids")
    for index, text in {**{index: token.text for index, token in added.items()}, **texts}.items():
        kind = TokenType.NORMAL if index in texts else TokenType.USER_DEFINED
        if BYTE_PIECE.fullmatch(text):
            kind = TokenType.BYTE
        elif text in _VISIBLE:
            kind = TokenType.USER_DEFINED
        elif text in special:
            kind = TokenType.CONTROL
        vocabulary.put(index, text, kind)
    return vocabulary


def _named(files: TokenizerFiles) -> Iterator[str]:
    """Tokens that tokenizer_config.json names by a key of their own, such as ``image_token``."""
    for key, entry in files.tokenizer_config.items():
        text = token_text(entry) if key.endswith("_token") else None
        if text is not None:
            yield text
