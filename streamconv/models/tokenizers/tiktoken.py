"""Vocabularies in tiktoken's format: lines of a token's bytes in base64 and its rank, which is its id.

Byte-level BPE without merges: two neighbours are joined where the token that they make has the lowest rank. What loaders want as
merges is therefore what becomes of each token's bytes when only lower ranks may join them; two parts are left.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...errors import BadInput
from .bpe import packed
from .files import TokenizerFiles
from .packed import PackedStrings
from .vocabulary import TokenType, Vocabulary, check_room, token_count

_PRINTABLE = (*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
#: byte -> its character in byte-level vocabularies
BYTE_TEXT = {**{b: chr(b) for b in _PRINTABLE}, **{b: chr(256 + n) for n, b in enumerate(_OTHERS)}}

Specials = Sequence[str | None] | Callable[[int], Sequence[str | None]]


def read_tiktoken(
    files: TokenizerFiles,
    config: Mapping[str, Any],
    vocab_size: int | None,
    name: str,
    specials: Specials,
    pre: str,
) -> Vocabulary:
    """The vocabulary of the file ``name``, for the pre-tokenizer ``pre``.

    Parameters
    ----------
    specials : the control tokens behind the ranks, None where there is none; or what gives them for a number of ranks

    Raises
    ------
    BadInput : the file is damaged, or has more tokens than the model
    """
    path = files.called(name)
    ranks = _ranks(files.text(name) or "", str(path))
    texts = specials(len(ranks)) if callable(specials) else specials
    limit = token_count(config, vocab_size, len(ranks) + len(texts), "vocab_size")
    check_room(path, len(ranks), limit)
    vocabulary = Vocabulary.empty("gpt2", pre, str(path), limit)
    for token, rank in ranks.items():
        vocabulary.put(rank, byte_text(token), TokenType.NORMAL)
    for index, text in enumerate(texts[: limit - len(ranks)], len(ranks)):
        if text is not None:
            vocabulary.put(index, text, TokenType.CONTROL)
    vocabulary.merges = _merges(ranks, path)
    vocabulary.checks_ids = False
    return vocabulary


def declared(files: TokenizerFiles) -> Callable[[int], Sequence[str | None]]:
    """What ``specials`` are where tokenizer_config.json's ``added_tokens_decoder`` names them, with gaps."""
    named = {token.id: token.text for token in files.declared_tokens}
    return lambda n_ranks: [named.get(n) for n in range(n_ranks, max(named, default=-1) + 1)]


def _ranks(text: str, path: str) -> dict[bytes, int]:
    """Bytes of a token -> rank, from 0 on without gaps."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            index = int(rank)
            ranks[base64.b64decode(token, validate=True)] = index
        except (ValueError, binascii.Error):
            raise BadInput(f"{path}: line {number} is not a token in base64 and its rank") from None
        if index != len(ranks) - 1:
            raise BadInput(
                f"{path}: line {number} has rank {index}, not {len(ranks) - 1}, or a token that is there already"
            )
    if not ranks:
        raise BadInput(f"{path} has no tokens")
    return ranks


def byte_text(token: bytes) -> str:
    """The text of a token in byte-level vocabularies."""
    return token.decode("latin-1").translate(BYTE_TEXT)


def _merges(ranks: Mapping[bytes, int], path: Any) -> PackedStrings:
    pairs = (_parts(token, rank, ranks) for token, rank in ranks.items() if len(token) > 1)
    return packed((f"{byte_text(pair[0])} {byte_text(pair[1])}" for pair in pairs if len(pair) == 2), path)


def _parts(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What is left of ``token`` when only pairs of lower ranks are joined."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        lowest = min(joined)
        if lowest >= rank:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
