"""Vocabularies of tiktoken: lines of a token in base64 and its rank; what follows the ranks is known by the model's code alone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import BadInput
from .files import TokenizerFiles
from .packed import PackedStrings
from .rules import Reader
from .vocabulary import TokenType, Vocabulary, check_room, token_count

#: (files, number of ranks, number of tokens or 0) -> id -> text of each token behind the ranks
Specials = Callable[[TokenizerFiles, int, int], Mapping[int, str]]
#: more bytes than any token has
_MAX_BYTES = 1 << 12


def _alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


_CHARACTERS = _alphabet()


def spelled(token: bytes) -> str:
    """A token as byte-level BPE spells it.

    >>> spelled(b" a")
    'Ġa'
    """
    return "".join(_CHARACTERS[byte] for byte in token)


def reader(name: str, pre: str, specials: Specials) -> Reader:
    """What reads the file ``name``, for a model whose pre-tokenizer is ``pre``."""

    def read(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, given: str | None) -> Vocabulary:
        path = files.called(name)
        ranks = _ranks(files.bytes(name) or b"", path)
        n_tokens = token_count(config, size, 0, "vocab_size")
        more = specials(files, len(ranks), n_tokens)
        needed = max(len(ranks), *(index + 1 for index in more)) if more else len(ranks)
        check_room(path, needed, n_tokens or needed)
        vocabulary = Vocabulary.empty("gpt2", given or pre, str(path), n_tokens or needed)
        for token, rank in ranks.items():
            vocabulary.put(rank, spelled(token), TokenType.NORMAL)
        for index, text in more.items():
            vocabulary.put(index, text, TokenType.CONTROL)
        vocabulary.checks_ids = False
        vocabulary.merges = PackedStrings(_merges(ranks))
        return vocabulary

    return read


def _ranks(data: bytes, path: Path) -> dict[bytes, int]:
    """Token -> rank, the ranks counting from 0 without a gap."""
    found: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            text, rank = line.split()
            token, place = base64.b64decode(text, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise BadInput(f"{path}: line {number} is not a token in base64 and its rank") from None
        if place != len(found) or token in found or not 0 < len(token) <= _MAX_BYTES:
            raise BadInput(
                f"{path}: line {number} is out of order, a second time the same token, or of no plausible length"
            )
        found[token] = place
    if not found:
        raise BadInput(f"{path} holds no tokens", "Fetch the file again.")
    return found


def _merges(ranks: Mapping[bytes, int]) -> Iterator[str]:
    """The merge that makes each token, in order of rank: the two parts that are left when only lower ranks join."""
    for token, rank in ranks.items():
        parts = _joined(token, ranks, rank) if len(token) > 1 else ()
        if len(parts) == 2:
            yield f"{spelled(parts[0])} {spelled(parts[1])}"


def _joined(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    parts = [bytes((byte,)) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, limit) for a, b in pairwise(parts)]
        best = min(pairs)
        if best >= limit:
            break
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _listed(files: TokenizerFiles) -> dict[int, str]:
    return {token.id: token.text for token in files.declared_tokens}


def of_kimi(files: TokenizerFiles, n_ranks: int, _n_tokens: int) -> Mapping[int, str]:
    """256 places behind the ranks, whose names tokenizer_config.json has or none."""
    named = _listed(files)
    return {n: named.get(n, f"<|reserved_token_{n}|>") for n in range(n_ranks, n_ranks + 256)}


def of_kimi_linear(files: TokenizerFiles, n_ranks: int, _n_tokens: int) -> Mapping[int, str]:
    """What tokenizer_config.json names."""
    return {n: text for n, text in _listed(files).items() if n >= n_ranks}


def _numbered(names: tuple[str, ...], n_ranks: int, n_tokens: int, spare: int) -> Mapping[int, str]:
    """``names`` and 205 numbered ones behind the ranks, of these as many as leave ``spare`` places of the vocabulary."""
    room = max(0, n_tokens - spare - n_ranks - len(names)) if n_tokens else 205
    texts = (*names, *(f"<|extra_{n}|>" for n in range(min(205, room))))
    return dict(enumerate(texts, n_ranks))


def of_qwen(_files: TokenizerFiles, n_ranks: int, n_tokens: int) -> Mapping[int, str]:
    """Qwen's marks; the vocabulary is padded behind them."""
    return _numbered(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), n_ranks, n_tokens, 1)


def of_hunyuan(_files: TokenizerFiles, n_ranks: int, n_tokens: int) -> Mapping[int, str]:
    """Hunyuan's marks."""
    names = ("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>")
    return _numbered(names, n_ranks, n_tokens, 0)
