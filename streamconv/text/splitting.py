"""Text is split into words by several patterns, one after the other, each over the pieces of the one before.

Patterns know classes of characters. As in llama.cpp, a text is first made into one of the same length with a single sign for all
characters of a class, over which an ordinary regular expression runs.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from functools import cache, partial
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from .characters import WHITESPACE, code_points, kinds

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
#: stand for rules that are no patterns: digits in threes from the right, for which patterns would take quadratic time
DIGITS_WITH_WHAT_GOES_BEFORE, ASCII_DIGITS = "digits with what goes before", "ASCII digits"


class Splitter:
    """Splits by patterns, in which ``\\p{…}`` with L, N, P, M, S and Han stands for a class."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._rules = [_RULES.get(p) or partial(_cut, _compiled(p)) for p in patterns]
        self._uses_signs = [r"\p" in p or p in _RULES for p in patterns]
        self._with_han = any(r"\p{Han}" in p for p in patterns)

    def words(self, text: str) -> Iterator[str]:
        """``text`` in pieces, nothing of it left out."""
        signs = plain = ""
        if any(self._uses_signs):
            signs = _signs(self._with_han)[code_points(text)].tobytes().decode("latin-1")
        if not all(self._uses_signs):
            plain = text if text.isascii() else text.translate(_BLANKS)
        ends = array("q", [len(text)])
        for rule, uses_signs in zip(self._rules, self._uses_signs, strict=True):
            ends = rule(signs if uses_signs else plain, ends)
        return (text[start:stop] for start, stop in pairwise(chain((0,), ends)))


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


def _cut(pattern: re.Pattern[str], subject: str, ends: array[int]) -> array[int]:
    """Matches, and what is between them; a match never looks beyond the piece that it is in.

    Pieces are given by their ends: each begins where the one before ends.
    """
    result, first = array("q"), 0
    for last in ends:
        at = first
        for found in pattern.finditer(subject, first, last):
            start, stop = found.span()
            if start > at:
                result.append(start)
            if stop > start:
                result.append(stop)
            at = stop
        if at < last:
            result.append(last)
        first = last
    return result


def _cut_digits(digits: re.Pattern[str], alone: bool, signs: str, ends: array[int]) -> array[int]:
    """Runs of digits in threes from the right; the first ones are ``alone``, or in one piece with what goes before them."""
    result, first = array("q"), 0
    for last in ends:
        at = first
        for found in digits.finditer(signs, first, last):
            start, stop = found.span()
            lead = (stop - start) % 3
            for end in range(start + lead, stop, 3) if alone else range(start + (lead or 3), stop + 1, 3):
                if end > at:
                    result.append(end)
                    at = end
        if at < last:
            result.append(last)
        first = last
    return result


_RULES = {
    DIGITS_WITH_WHAT_GOES_BEFORE: partial(_cut_digits, _compiled(r"\p{N}+"), False),
    ASCII_DIGITS: partial(_cut_digits, _compiled("[0-9]+"), True),
}


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


_BLANKS = {ord(c): "\v" for c in WHITESPACE if not c.isascii()}
