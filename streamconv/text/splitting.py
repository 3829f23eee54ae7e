"""Text is split into words by several patterns, one after the other, each over the pieces of the one before.

Patterns know classes of characters. As in llama.cpp, a text is first made into one of the same length with a single sign for all
characters of a class, over which an ordinary regular expression runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt

from .characters import WHITESPACE, code_points, kinds

Span = tuple[int, int]
#: class -> what stands for it between brackets; \xd6 and \xd7 are Han, a letter or not
_CLASSES = {
    r"\p{N}": "0-9\xd1",
    r"\p{L}": "A-Za-z\xd2\xd6",
    r"\p{P}": r"!-#%-*,-/:;?@\[-\]_{}" + "\xd3",
    r"\p{M}": "\xd4",
    r"\p{S}": r"$+<->\^`|~" + "\xd5",
    r"\p{Han}": "\xd6\xd7",
}
#: the sign of all other characters that are not ASCII
_OTHER = 0xD0
#: Chinese characters as llama.cpp has them
_HAN = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF)),
    *((0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
#: stands for a rule that is no pattern: digits in threes from the right, each run's first group with all that goes before it
DIGITS_FROM_THE_RIGHT = "digits from the right"


class Splitter:
    """Splits by patterns, in which ``\\p{…}`` with L, N, P, M, S and Han stands for a class."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._uses_classes = [r"\p" in p or p == DIGITS_FROM_THE_RIGHT for p in patterns]
        self._with_han = any(r"\p{Han}" in p for p in patterns)
        self._patterns = [None if p == DIGITS_FROM_THE_RIGHT else _compiled(p) for p in patterns]

    def words(self, text: str) -> list[str]:
        """``text`` in pieces, nothing of it left out."""
        points = code_points(text)
        signs = _signs(self._with_han)[points].tobytes().decode("latin-1") if any(self._uses_classes) else ""
        plain = _plain(text) if not all(self._uses_classes) else ""
        spans: list[Span] = [(0, len(text))]
        for pattern, uses_classes in zip(self._patterns, self._uses_classes, strict=True):
            subject = signs if uses_classes else plain
            spans = _digits_from_the_right(subject, spans) if pattern is None else _cut(pattern, subject, spans)
        return [text[start:stop] for start, stop in spans]


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_between_brackets(pattern), re.ASCII)


def _between_brackets(pattern: str) -> str:
    """``pattern`` with classes spelled out, in brackets where they are in none.

    >>> _between_brackets(r"[^\\p{M}]\\p{N}")
    '[^Ô][0-9Ñ]'
    """
    result, inside, at = [], False, 0
    for found in re.finditer(r"\\p\{\w+\}|\\.|[\[\]]", pattern, re.DOTALL):
        text = found[0]
        if text in _CLASSES:
            text = _CLASSES[text] if inside else f"[{_CLASSES[text]}]"
        elif text in "[]":
            inside = text == "["
        result += [pattern[at : found.start()], text]
        at = found.end()
    return "".join([*result, pattern[at:]])


def _cut(pattern: re.Pattern[str], subject: str, spans: Iterable[Span]) -> list[Span]:
    """Each of ``spans`` in matches and what is between them; a match never looks beyond its span."""
    result = []
    for first, last in spans:
        at = first
        for found in pattern.finditer(subject, first, last):
            start, stop = found.span()
            if start > at:
                result.append((at, start))
            if stop > start:
                result.append((start, stop))
            at = stop
        if at < last:
            result.append((at, last))
    return result


_DIGITS = _compiled(r"\p{N}+")


def _digits_from_the_right(signs: str, spans: Iterable[Span]) -> list[Span]:
    result = []
    for first, last in spans:
        at = first
        for found in _DIGITS.finditer(signs, first, last):
            start, stop = found.span()
            for end in range(start + ((stop - start) % 3 or 3), stop + 1, 3):
                result.append((at, end))
                at = end
        if at < last:
            result.append((at, last))
    return result


@cache
def _signs(with_han: bool) -> npt.NDArray[np.uint8]:
    """uint8[0x110000]: the sign that stands for every character."""
    by_kind = np.full(256, _OTHER, np.uint8)
    for kind, classes in (("N", 0xD1), ("L", 0xD2), ("P", 0xD3), ("M", 0xD4), ("S", 0xD5)):
        by_kind[ord(kind)] = classes
    signs = by_kind[kinds()]
    if with_han:
        for first, last in _HAN:
            han = signs[first : last + 1]
            han[:] = np.where(han == 0xD2, 0xD6, 0xD7)
    signs[[ord(c) for c in WHITESPACE]] = ord("\v")
    signs[:128] = np.arange(128)
    return signs


def _plain(text: str) -> str:
    """``text`` with all blanks such as ASCII knows."""
    return text if text.isascii() else text.translate(_BLANKS)


_BLANKS = {ord(c): "\v" for c in WHITESPACE if not c.isascii()}
