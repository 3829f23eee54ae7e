"""Exact selection by rank over all rows of a tensor, in bounded memory.

Elements are ordered by key, the largest first, and equal keys by place, the first first; so the ``r`` largest are one
well-defined set. A pass over a sample of the blocks says roughly where the r-th key lies, a second pass counts every key in a
narrow window around it and those above, and a third finds the place up to which equal keys belong to the set, where it
matters. A window that misses costs one more pass; the result does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats
from .kernels import load
from .scratch import borrow
from .stream import Stream

Keys = NDArray[np.uint32]
Counts = NDArray[np.int64]
#: fills uint32[n_kinds, n] with the keys of a block: ``(x, start, keys)``
KeysOf = Callable[[Floats, int, Keys], None]

_BINS = 1 << 16
_BIN_BITS = 15
#: bins to either side of the guess
_MARGIN = 4
_SAMPLE = 1 << 18
_SAMPLE_SHARE = 64


@dataclass(frozen=True)
class Cut:
    """The set of the largest elements.

    Attributes
    ----------
    threshold : larger keys belong to it
    ties : flat index; keys equal to ``threshold`` belong to it before this place
    """

    threshold: int
    ties: int

    def local(self, first: int, size: int) -> tuple[Any, int]:
        """Threshold and place for ``size`` elements from ``first`` on, as the kernels take them."""
        return np.uint32(self.threshold), max(0, min(size, self.ties - first))


@dataclass
class _Search:
    """One rank of one kind of key: the window [``low``, ``low`` + ``width``) and what was found."""

    kind: int
    rank: int
    low: int = 0
    width: int = 0
    cut: Cut | None = None
    wanted_ties: int = 0

    def aim(self, counts: Counts, rank: float, margin: int) -> None:
        """Put the window around the bin where the ``rank``-th largest key is by ``counts`` of all bins."""
        from_top = np.cumsum(counts[self.kind, ::-1])
        guess = _BINS - 1 - int(np.searchsorted(from_top, min(max(rank, 1.0), float(from_top[-1]))))
        first, last = max(0, guess - margin), min(_BINS - 1, guess + margin)
        self.low, self.width = first << _BIN_BITS, (last - first + 1) << _BIN_BITS

    def found(self, counts: Counts, above: int, size: int) -> bool:
        """Take the result of a counting pass; False when the key is outside of the window."""
        inside = np.cumsum(counts[::-1])
        if not above < self.rank <= above + int(inside[-1]):
            return False
        at = int(np.searchsorted(inside, self.rank - above))
        threshold = self.low + self.width - 1 - at
        equal = int(counts[self.width - 1 - at])
        self.wanted_ties = self.rank - above - int(inside[at]) + equal
        # all of the equal ones; and zeros are all alike
        everything = self.wanted_ties == equal or threshold == 0
        self.cut = Cut(threshold, size if everything else -1)
        return True


def select(stream: Stream, keys_of: KeysOf, ranks: Sequence[Sequence[int]], places: bool = True) -> list[list[Cut]]:
    """The sets of the ``r`` largest elements, for every ``r`` of ``ranks[kind]``.

    Parameters
    ----------
    keys_of : makes ``len(ranks)`` kinds of keys of a block
    ranks : for every kind the sizes of the sets, 0 … number of elements
    places : find ``ties`` too; without, only the thresholds are right

    Returns
    -------
    list : as ``ranks``
    """
    size = stream.n_rows * stream.n_cols
    found = {(kind, r): Cut(0, size) if r >= size else Cut(0xFFFFFFFF, 0) for kind, rs in enumerate(ranks) for r in rs}
    searches = [_Search(kind, r) for (kind, r) in found if 0 < r < size]
    if searches:
        _Selection(stream, keys_of, len(ranks), searches).run(places)
    for search in searches:
        assert search.cut is not None
        found[search.kind, search.rank] = search.cut
    return [[found[kind, r] for r in rs] for kind, rs in enumerate(ranks)]


class _Selection:
    """The passes of one call of ``select``."""

    def __init__(self, stream: Stream, keys_of: KeysOf, n_kinds: int, searches: list[_Search]) -> None:
        self.stream = stream
        self.keys_of = keys_of
        self.n_kinds = n_kinds
        self.searches = searches
        self.size = stream.n_rows * stream.n_cols
        self.kernels: Any = load("ranks")

    def run(self, places: bool) -> None:
        """All passes."""
        stride = max(1, self.size // max(_SAMPLE, self.size // _SAMPLE_SHARE))
        self._aim(range(stride // 2, self.stream.n_blocks, stride) if stride > 1 else None, self.searches)
        missed = self._count(self.searches)
        if missed:
            self._aim(None, missed)
            missed = self._count(missed)
        assert not missed
        if places:
            self._place([s for s in self.searches if s.cut is not None and s.cut.ties < 0])

    def _keys(self, x: Floats, start: int, use: Callable[[Keys], None]) -> None:
        with borrow(self.n_kinds, x[0].size) as scratch:
            keys = scratch.view(np.uint32)
            self.keys_of(x, start, keys)
            use(keys)

    def _aim(self, blocks: range | None, searches: list[_Search]) -> None:
        """Guess windows from the keys of ``blocks``; with all of them it is no guess."""

        def look(counts: Counts, x: Floats, start: int, at: int) -> None:
            def use(keys: Keys) -> None:
                for row, found in zip(keys, counts, strict=True):
                    self.kernels.coarse(row, found)

            self._keys(x, start, use)

        parts = self.stream.fold(lambda: np.zeros((self.n_kinds, _BINS), np.int64), look, blocks)
        counts = np.sum(parts, axis=0)
        share = int(counts[0].sum()) / self.size
        for search in searches:
            search.aim(counts, search.rank if blocks is None else search.rank * share, 0 if blocks is None else _MARGIN)

    def _count(self, searches: list[_Search]) -> list[_Search]:
        """Count in the windows; those searches whose key is elsewhere."""

        def new() -> list[tuple[Counts, Counts]]:
            return [(np.zeros(s.width, np.int64), np.zeros(1, np.int64)) for s in searches]

        def look(counts: list[tuple[Counts, Counts]], x: Floats, start: int, at: int) -> None:
            def use(keys: Keys) -> None:
                for search, (inside, above) in zip(searches, counts, strict=True):
                    self.kernels.window(keys[search.kind], np.uint32(search.low), inside, above)

            self._keys(x, start, use)

        parts = self.stream.fold(new, look)
        missed = []
        for i, search in enumerate(searches):
            inside = np.sum([part[i][0] for part in parts], axis=0)
            if not search.found(inside, sum(int(part[i][1][0]) for part in parts), self.size):
                missed.append(search)
        return missed

    def _place(self, searches: list[_Search]) -> None:
        """Find the places where enough of the equal keys have been seen."""
        if not searches:
            return

        def count(x: Floats, start: int) -> Counts:
            counts = np.zeros((len(searches), 1), np.int64)

            def use(keys: Keys) -> None:
                for search, row in zip(searches, counts, strict=True):
                    assert search.cut is not None
                    self.kernels.count_equal(keys[search.kind], np.uint32(search.cut.threshold), row)

            self._keys(x, start, use)
            return counts[:, 0]

        seen = np.cumsum(self.stream.map(count), axis=0)
        for i, search in enumerate(searches):
            assert search.cut is not None
            block = int(np.searchsorted(seen[:, i], search.wanted_ties))
            before = int(seen[block - 1, i]) if block else 0
            places: list[int] = []

            def find(x: Floats, start: int, search: _Search = search, places: list[int] = places) -> None:
                def use(keys: Keys) -> None:
                    assert search.cut is not None
                    places.extend(np.flatnonzero(keys[search.kind] == search.cut.threshold).tolist())

                self._keys(x, start, use)

            self.stream.map(find, [block])
            first = block * self.stream.block_rows * self.stream.n_cols
            search.cut = Cut(search.cut.threshold, first + places[search.wanted_ties - before - 1] + 1)
