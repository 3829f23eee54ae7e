"""A remote file as it is listed, how it is cut into ranges, and where else it may lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Elsewhere:
    """Where a file lies complete outside of the store, to be read only.

    Attributes
    ----------
    is_trusted : whether no other user can write to it
    has_digest : whether the file's key is a digest of its content
    """

    path: Path
    is_trusted: bool = True
    has_digest: bool = True


class Hash(Protocol):
    """A running digest, as ``hashlib`` has them."""

    def update(self, data: bytes, /) -> object:
        """Take in ``data``."""

    def hexdigest(self) -> str:
        """The digest of everything taken in."""

    def copy(self) -> Hash:
        """One that goes on from here by itself."""


class Remote(Protocol):
    """A file as the remote side lists it; ``key`` identifies its bytes whatever their source."""

    @property
    def path(self) -> str:
        """Name within the model, with slashes."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def key(self) -> str:
        """Hexadecimal digest of the content; letters and digits only."""

    @property
    def digest(self) -> str:
        """The kind of digest and ``key``, for messages."""

    def new_hash(self) -> Hash:
        """A running digest whose end must equal ``key``."""


@dataclass(frozen=True)
class Cut:
    """How ``size`` bytes are cut into ranges: a short first one, which holds most headers, and equal ones behind it.

    >>> cut = Cut(100, 10, 40)
    >>> [cut.span(i) for i in range(cut.n_ranges)], list(cut.touched(9, 2)), cut.index_of(50)
    ([(0, 10), (10, 50), (50, 100)], [0, 1], 2)
    """

    size: int
    head: int
    step: int

    @property
    def n_ranges(self) -> int:
        """Number of ranges; the last one takes up to half a step more."""
        if self.size <= self.head + self.step // 2:
            return min(self.size, 1)
        return 1 + max(1, (self.size - self.head + self.step // 2 - 1) // self.step)

    def span(self, index: int) -> tuple[int, int]:
        """First byte of range ``index`` and the one after its last."""
        start = self.head + (index - 1) * self.step if index else 0
        stop = self.head + index * self.step
        return start, self.size if index == self.n_ranges - 1 else stop

    def index_of(self, offset: int) -> int:
        """The range that holds byte ``offset``."""
        index = 0 if offset < self.head else 1 + (offset - self.head) // self.step
        return min(index, self.n_ranges - 1)

    def touched(self, offset: int, length: int) -> range:
        """The ranges that hold ``length`` bytes from ``offset``."""
        return range(self.index_of(offset), self.index_of(offset + length - 1) + 1) if length > 0 else range(0)
