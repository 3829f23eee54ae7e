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
#: most keys near a threshold that a thread lists: 8 MiB
_LISTED = 2 << 20


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
        n_bins = 2 * margin + 1
        first = max(0, min(guess - margin, _BINS - n_bins))
        self.low, self.width = first << _BIN_BITS, n_bins << _BIN_BITS

    def found(self, hits: _Hits, number: int, size: int) -> bool:
        """Take the result of a counting pass, search ``number`` of it; False when the key is outside of the window."""
        above = int(hits.above[number])
        offset, beyond, equal = hits.ranked(number, self.rank - above)
        if offset < 0:
            return False
        threshold = self.low + offset
        self.wanted_ties = self.rank - above - beyond
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


class _Hits:
    """The keys that fell into the windows: listed while they are few, counted one by one when they are not.

    Parameters
    ----------
    n_searches, width : number and width of the windows

    Attributes
    ----------
    above : int64[n_searches], keys beyond the windows
    """

    def __init__(self, n_searches: int, width: int) -> None:
        self.above = np.zeros(n_searches, np.int64)
        self._width = width
        self._listed: dict[int, list[Keys]] = {}
        self._room = _LISTED
        self._counts: Counts | None = None

    def add(self, block: int, hits: Keys, n_hits: Counts) -> None:
        """Take the hits of a block."""
        rows = [row[:n] for row, n in zip(hits, n_hits.tolist(), strict=True)]
        self._room -= int(n_hits.sum())
        if self._room < 0:
            self._tally(rows)
        else:
            self._listed[block] = [row.copy() for row in rows]

    def _tally(self, rows: list[Keys]) -> None:
        for row, counts in zip(rows, self._counted(), strict=True):
            load("ranks").tally(row, counts)

    def _counted(self) -> Counts:
        """Counts of all hits so far; nothing is listed any more."""
        if self._counts is None:
            self._counts = np.zeros((len(self.above), self._width), np.int64)
        listed, self._listed = self._listed, {}
        for rows in listed.values():
            self._tally(rows)
        return self._counts

    def join(self, others: Sequence[_Hits]) -> None:
        """Take what other threads have."""
        counted = any(each._counts is not None for each in (self, *others))
        for other in others:
            self.above += other.above
            if counted:
                found = self._counted()
                found += other._counted()
            else:
                self._listed |= other._listed
        if counted:
            self._counted()

    def ranked(self, number: int, rank: int) -> tuple[int, int, int]:
        """The ``rank``-th largest of a search's hits, how many are larger, and how many equal it; -1 where there is none."""
        if self._counts is not None:
            inside = np.cumsum(self._counts[number, ::-1])
            at = int(np.searchsorted(inside, rank))
            if rank < 1 or at == len(inside):
                return -1, 0, 0
            equal = int(self._counts[number, len(inside) - 1 - at])
            return len(inside) - 1 - at, int(inside[at]) - equal, equal
        hits = np.concatenate([rows[number] for rows in self._listed.values()])
        if not 1 <= rank <= len(hits):
            return -1, 0, 0
        found = int(np.partition(hits, len(hits) - rank)[len(hits) - rank])
        return found, int(np.count_nonzero(hits > found)), int(np.count_nonzero(hits == found))

    def ties(self, number: int, offset: int, n_blocks: int) -> list[int] | None:
        """How many hits of every block equal ``offset``; None where they are no longer known."""
        if self._counts is not None:
            return None
        return [int(np.count_nonzero(self._listed[block][number] == offset)) for block in range(n_blocks)]


class _Selection:
    """The passes of one call of ``select``."""

    def __init__(self, stream: Stream, keys_of: KeysOf, n_kinds: int, searches: list[_Search]) -> None:
        self.stream = stream
        self.keys_of = keys_of
        self.n_kinds = n_kinds
        self.searches = searches
        self.size = stream.n_rows * stream.n_cols
        self.kernels: Any = load("ranks")
        #: for searches with ties how many of them every block has
        self._seen: dict[int, list[int]] = {}

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
        kinds = np.array([s.kind for s in searches], np.int64)
        lows = np.array([s.low for s in searches], np.uint32)
        width = searches[0].width  # of all

        def new() -> _Hits:
            return _Hits(len(searches), width)

        def look(found: _Hits, x: Floats, start: int, at: int) -> None:
            with borrow(len(searches), x[0].size) as scratch:
                hits, n_hits = scratch.view(np.uint32), np.zeros(len(searches), np.int64)
                self._keys(
                    x, start, lambda keys: self.kernels.window(keys, kinds, lows, width, found.above, hits, n_hits)
                )
                found.add(at, hits, n_hits)

        first, *others = self.stream.fold(new, look)
        first.join(others)
        missed = [search for number, search in enumerate(searches) if not search.found(first, number, self.size)]
        for number, search in enumerate(searches):
            if search.cut is not None and search.cut.ties < 0:
                ties = first.ties(number, search.cut.threshold - search.low, self.stream.n_blocks)
                if ties is not None:
                    self._seen[id(search)] = ties
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

        if not all(id(search) in self._seen for search in searches):
            for search, column in zip(searches, np.array(self.stream.map(count)).T, strict=True):
                self._seen[id(search)] = column.tolist()
        for search in searches:
            assert search.cut is not None
            seen = np.cumsum(self._seen[id(search)])
            block = int(np.searchsorted(seen, search.wanted_ties))
            before = int(seen[block - 1]) if block else 0
            places: list[int] = []

            def find(x: Floats, start: int, search: _Search = search, places: list[int] = places) -> None:
                def use(keys: Keys) -> None:
                    assert search.cut is not None
                    places.extend(np.flatnonzero(keys[search.kind] == search.cut.threshold).tolist())

                self._keys(x, start, use)

            self.stream.map(find, [block])
            first = block * self.stream.block_rows * self.stream.n_cols
            search.cut = Cut(search.cut.threshold, first + places[search.wanted_ties - before - 1] + 1)
