"""A hundred thousand short strings in two blocks of memory.

A list of 150 000 token texts costs about 70 bytes per text in object headers alone and lives until the metadata is
written. Here the texts lie end to end, in the very encoding GGUF gives an array of strings, beside their offsets.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import overload


class PackedStrings(Sequence[str]):
    """An immutable sequence of strings.

    Parameters
    ----------
    texts : the strings, in order

    Attributes
    ----------
    packed : every string as its UTF-8 length (u64, little endian) followed by its bytes; the body of a GGUF array

    Notes
    -----
    Lone surrogates cannot be encoded: ``UnicodeEncodeError``.

    >>> words = PackedStrings(["a", "", "Ġb"])
    >>> words[2], list(words) == ["a", "", "Ġb"], len(words.packed)
    ('Ġb', True, 28)
    """

    __slots__ = ("_starts", "packed")

    def __init__(self, texts: Iterable[str]) -> None:
        data = [text.encode("utf-8") for text in texts]
        lengths = [len(each) for each in data]
        packed = {n: struct.pack("<Q", n) for n in set(lengths)}
        self._starts = array("Q", accumulate((n + 8 for n in lengths), initial=0))
        self.packed = b"".join(chain.from_iterable(zip((packed[n] for n in lengths), data, strict=True)))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _text(self, index: int) -> str:
        return self.packed[self._starts[index] + 8 : self._starts[index + 1]].decode("utf-8")

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._text(index)

    def __iter__(self) -> Iterator[str]:
        packed, starts = self.packed, iter(self._starts)
        start = next(starts)
        for stop in starts:
            yield str(packed[start + 8 : stop], "utf-8")
            start = stop

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedStrings):
            return self.packed == other.packed
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.packed)

    def __repr__(self) -> str:
        return f"PackedStrings({len(self)} strings, {len(self.packed)} bytes)"
