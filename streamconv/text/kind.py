"""What the kinds of vocabularies have in common: bytes of a text become tokens, and words that were seen are not made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: words that are kept: more would take more memory than they save time
_MOST_WORDS = 1 << 17


class Kind(Protocol):
    """One way to make tokens."""

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``, which has no special ones; ``follows_token``: it begins a text or stands behind such a one."""


class Words(dict[str, list[int]]):
    """Tokens by word; those not seen before are made by ``make``."""

    def __init__(self, make: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= _MOST_WORDS:
            self.clear()
        tokens = self._make(word)
        self[word] = tokens
        return tokens
