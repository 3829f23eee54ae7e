"""The longest of many texts at a place of another one."""

from __future__ import annotations

from collections.abc import Iterable


class Prefixes:
    """Everything that the texts of a vocabulary begin with.

    Attributes
    ----------
    tokens : beginning -> the number of the text that it is all of, or None
    """

    def __init__(self, texts: Iterable[tuple[bytes, int]]) -> None:
        self.tokens: dict[bytes, int | None] = {}
        tokens = self.tokens
        for text, number in texts:
            for end in range(len(text) - 1, 0, -1):
                if text[:end] in tokens:
                    break
                tokens[text[:end]] = None
            tokens[text] = number

    def walk(self, text: bytes, at: int) -> int:
        """The end of the longest beginning that is found at ``at``; ``at`` where there is none."""
        end = at
        while end < len(text) and text[at : end + 1] in self.tokens:
            end += 1
        return end
