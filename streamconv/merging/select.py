"""Exact selection by rank over all rows of a tensor, in bounded memory.

Elements are ordered by key, the largest first, and equal keys by place, the first first; so the ``r`` largest are one
well-defined set. A sample of the rows says roughly where the r-th key lies; one pass over the tensor lists the keys in a narrow
window around it and counts those above. Where the listed keys end is known, so equal keys need no second pass. A window that
misses, as rows that have nothing in common may make it, costs two more passes, which count all keys by their upper half and
then those that agree in it; the result does not depend on any of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels import load
from .inputs import Numbers
from .scratch import borrow
from .stream import Stream

Keys = NDArray[np.uint32]
Counts = NDArray[np.int64]

_BINS = 1 << 16
_BIN_BITS = 15
#: one more than the largest key
_END = (1 << 31) - 1
#: a tensor of so many elements is listed as a whole
_SMALL = 1 << 15
#: rows of a sample, and most keys of it
_SAMPLE_ROWS = 64
_SAMPLE_SHARE = 64
_SAMPLE = 1 << 17
#: standard deviations of the rank, as estimated from the sample, to either side of the guess
_MARGIN = 4.5
#: most keys near a threshold that a thread lists, and most counters it replaces the list by: 16 MiB each
_LISTED = 4 << 20
_COUNTERS = 2 << 20
#: bits of a bin of listed keys
_LISTED_BITS = 12


class KeySource(Protocol):
    """The keys of some rows."""

    @property
    def kinds(self) -> int:
        """How many keys an element has."""

    def fill(self, x: Numbers, start: int, keys: Keys) -> None:
        """Fill ``keys`` uint32[kinds, n] for the rows ``x`` from ``start`` on."""

    def window(
        self, x: Numbers, start: int, which: Counts, lows: Keys, widths: Keys, above: Counts, hits: Keys, n_hits: Counts
    ) -> None:
        """As the kernel ``ranks.window`` for the searches in the kinds ``which``."""


class MadeKeys:
    """Keys of one kind that a function makes: ``keys_of(x, start, keys)`` fills uint32[1, n]."""

    kinds = 1

    def __init__(self, keys_of: Callable[[Any, int, Keys], None]) -> None:
        self.fill = keys_of

    def window(
        self, x: Numbers, start: int, which: Counts, lows: Keys, widths: Keys, above: Counts, hits: Keys, n_hits: Counts
    ) -> None:
        """See ``KeySource``."""
        with borrow(1, x[0].size) as scratch:
            keys = scratch.view(np.uint32)
            self.fill(x, start, keys)
            load(".merging.kernels.ranks").window(keys, which, lows, widths, above, hits, n_hits)


class Differences:
    """Magnitudes of the differences of some ``inputs``, by their numbers, to the first: one kind each."""

    def __init__(self, inputs: Sequence[int]) -> None:
        self._inputs = np.array(inputs, np.int64)
        self.kinds = len(inputs)

    def fill(self, x: Numbers, start: int, keys: Keys) -> None:
        """See ``KeySource``."""
        load(".merging.kernels.ranks").difference_keys(x.reshape(len(x), -1), self._inputs, keys)

    def window(
        self, x: Numbers, start: int, which: Counts, lows: Keys, widths: Keys, above: Counts, hits: Keys, n_hits: Counts
    ) -> None:
        """See ``KeySource``."""
        flat = x.reshape(len(x), -1)
        load(".merging.kernels.ranks").difference_window(flat, self._inputs[which], lows, widths, above, hits, n_hits)


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
    low: int = 1
    width: int = _END
    cut: Cut | None = None
    wanted_ties: int = 0

    def aim(self, sample: Keys, counts: Counts, size: int) -> None:
        """Put the window around the key of this rank among ``size``.

        Parameters
        ----------
        sample : uint32[n_rows, n], keys of some rows
        counts : int64[65536], the same by bins
        """
        from_top = np.cumsum(counts[::-1])
        share = self.rank / size

        def bin_at(part: float) -> int:
            """The bin of the key that ``part`` of the sample reaches or exceeds."""
            return _BINS - 1 - int(np.searchsorted(from_top, max(part, 0.0) * sample.size))

        # Elements of a row are alike, so rows, not elements, tell how far the sample may be wrong.
        rows = float(np.mean(sample >= bin_at(share) << _BIN_BITS, axis=1).std()) / math.sqrt(len(sample))
        margin = _MARGIN * max(rows, math.sqrt(share * (1 - share) / sample.size), 1 / sample.size)
        # Zeros are never listed: there may be many, and they are all alike.
        self.low = max(1, bin_at(share + margin) << _BIN_BITS) if share + margin < 1 else 1
        self.width = (min((bin_at(share - margin) + 1) << _BIN_BITS, _END) if share > margin else _END) - self.low

    def aim_at_bin(self, counts: Counts) -> None:
        """Put the window on the bin where the key is, by the counts of all bins."""
        from_top = np.cumsum(counts[::-1])
        number = _BINS - 1 - int(np.searchsorted(from_top, self.rank))
        self.low, self.width = number << _BIN_BITS, 1 << _BIN_BITS

    def found(self, hits: _Hits, number: int, size: int) -> bool:
        """Take the result of a counting pass, search ``number`` of it; False when the key is outside of the window."""
        above = int(hits.above[number])
        offset, beyond, equal = hits.ranked(number, self.rank - above)
        if offset < 0:
            if self.low == 1 and not hits.lost and self.rank - above > hits.count(number):
                self.cut = Cut(0, size)
            return self.cut is not None
        threshold = self.low + offset
        self.wanted_ties = self.rank - above - beyond
        # all of the equal ones; and zeros are all alike
        everything = self.wanted_ties == equal or threshold == 0
        self.cut = Cut(threshold, size if everything else -1)
        return True


def select(stream: Stream, keys: KeySource, ranks: Sequence[Sequence[int]], places: bool = True) -> list[list[Cut]]:
    """The sets of the ``r`` largest elements, for every ``r`` of ``ranks[kind]``.

    Parameters
    ----------
    keys : of ``len(ranks)`` kinds
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
        _Selection(stream, keys, searches).run(places)
    for search in searches:
        assert search.cut is not None
        found[search.kind, search.rank] = search.cut
    return [[found[kind, r] for r in rs] for kind, rs in enumerate(ranks)]


class _Hits:
    """The keys that fell into the windows: listed while they are few, counted one by one when they are not.

    Parameters
    ----------
    widths : of the windows, one a search

    Attributes
    ----------
    above : int64[n_searches], keys beyond the windows
    lost : there were too many for either
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.above = np.zeros(len(widths), np.int64)
        self.lost = False
        self._widths = widths
        self._listed: dict[int, list[Keys]] = {}
        self._room = _LISTED
        self._counts: list[Counts] | None = None

    def add(self, tile: int, hits: Keys, n_hits: Counts) -> None:
        """Take the hits of a tile."""
        rows = [row[:n] for row, n in zip(hits, n_hits.tolist(), strict=True)]
        self._room -= int(n_hits.sum())
        if self._room >= 0:
            self._listed[tile] = [row.copy() for row in rows]
        else:
            self._tally(rows)

    def _tally(self, rows: Sequence[Keys]) -> None:
        for row, counts in zip(rows, self._counted(), strict=False):  # none when they are lost
            load(".merging.kernels.ranks").tally(row, 0, counts)

    def _counted(self) -> list[Counts]:
        """Counts of all hits so far; nothing is listed any more."""
        if self._counts is None:
            # one bin each is always counted
            self.lost = sum(self._widths) > max(_COUNTERS, len(self._widths) << _BIN_BITS)
            self._counts = [] if self.lost else [np.zeros(width, np.int64) for width in self._widths]
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
                for mine, theirs in zip(self._counted(), other._counted(), strict=True):
                    mine += theirs
            else:
                self._listed |= other._listed
        if counted:
            self._counted()

    def count(self, number: int) -> int:
        """How many hits a search has."""
        if self._counts is not None:
            return int(self._counts[number].sum())
        return sum(len(rows[number]) for rows in self._listed.values())

    def ranked(self, number: int, rank: int) -> tuple[int, int, int]:
        """The ``rank``-th largest of a search's hits, how many are larger, and how many equal it; -1 where there is none."""
        if self.lost or not 1 <= rank <= self.count(number):
            return -1, 0, 0
        if self._counts is not None:
            inside = np.cumsum(self._counts[number][::-1])
            at = int(np.searchsorted(inside, rank))
            equal = int(self._counts[number][len(inside) - 1 - at])
            return len(inside) - 1 - at, int(inside[at]) - equal, equal
        # Bins first: what is left for sorting is next to nothing.
        shift = max(0, self._widths[number].bit_length() - _LISTED_BITS)
        counts = np.zeros(1 << _LISTED_BITS, np.int64)
        for rows in self._listed.values():
            load(".merging.kernels.ranks").tally(rows[number], shift, counts)
        inside = np.cumsum(counts[::-1])
        at = int(np.searchsorted(inside, rank))
        near = len(inside) - 1 - at
        beyond = int(inside[at] - counts[near])
        hits = np.concatenate([row[row >> shift == near] for rows in self._listed.values() for row in (rows[number],)])
        hits.sort()
        found = int(hits[len(hits) - (rank - beyond)])
        larger = len(hits) - int(np.searchsorted(hits, found, side="right"))
        return found, beyond + larger, int(np.count_nonzero(hits == found))

    def ties(self, number: int, offset: int, n_tiles: int) -> list[int] | None:
        """How many hits of every tile equal ``offset``; None where they are no longer known."""
        if self._counts is not None:
            return None
        return [int(np.count_nonzero(self._listed[tile][number] == offset)) for tile in range(n_tiles)]


class _Selection:
    """The passes of one call of ``select``."""

    def __init__(self, stream: Stream, keys: KeySource, searches: list[_Search]) -> None:
        self.stream = stream
        self.keys = keys
        self.searches = searches
        self.size = stream.n_rows * stream.n_cols
        self.kernels = load(".merging.kernels.ranks")
        #: for searches with ties how many of them every tile has
        self._seen: dict[int, list[int]] = {}

    def run(self, places: bool) -> None:
        """All passes."""
        if self.size > _SMALL:
            sample = self._sample()
            counts = np.zeros((self.keys.kinds, _BINS), np.int64)
            for rows, found in zip(sample, counts, strict=True):
                self.kernels.coarse(rows.reshape(-1), found)
            for search in self.searches:
                search.aim(sample[search.kind], counts[search.kind], self.size)
        missed = self._count(self.searches)
        if missed:
            self._aim_at_bins(missed)
            missed = self._count(missed)
        assert not missed
        if places:
            self._place([s for s in self.searches if s.cut is not None and s.cut.ties < 0])

    def _fill(self, x: Numbers, start: int, use: Callable[[Keys], None]) -> None:
        with borrow(self.keys.kinds, x[0].size) as scratch:
            keys = scratch.view(np.uint32)
            self.keys.fill(x, start, keys)
            use(keys)

    def _sample(self) -> Keys:
        """Keys of rows at equal distances, uint32[kinds, n_rows, n], of long rows some."""
        n_rows, n_cols = self.stream.n_rows, self.stream.n_cols
        n = min(n_rows, max(_SAMPLE_ROWS, min(self.size // _SAMPLE_SHARE, _SAMPLE) // n_cols))
        columns = slice(None, None, max(1, n * n_cols // _SAMPLE))
        found = np.empty((self.keys.kinds, n, len(range(n_cols)[columns])), np.uint32)
        for i in range(n):
            row = (2 * i + 1) * n_rows // (2 * n)
            with self.stream.rows(row, row + 1) as x:

                def use(keys: Keys, i: int = i) -> None:
                    found[:, i] = keys[:, columns]

                self._fill(x, row, use)
        return found

    def _aim_at_bins(self, searches: list[_Search]) -> None:
        """Find the windows of ``searches`` by a pass over all keys."""

        def look(counts: Counts, x: Numbers, start: int, at: int) -> None:
            def use(keys: Keys) -> None:
                for row, found in zip(keys, counts, strict=True):
                    self.kernels.coarse(row, found)

            self._fill(x, start, use)

        parts = self.stream.fold(lambda: np.zeros((self.keys.kinds, _BINS), np.int64), look)
        counts = np.sum(parts, axis=0)
        for search in searches:
            search.aim_at_bin(counts[search.kind])

    def _count(self, searches: list[_Search]) -> list[_Search]:
        """List or count what is in the windows; those searches whose key is elsewhere."""
        kinds = np.array([s.kind for s in searches], np.int64)
        lows = np.array([s.low for s in searches], np.uint32)
        widths = np.array([s.width for s in searches], np.uint32)

        def new() -> _Hits:
            return _Hits([s.width for s in searches])

        def look(found: _Hits, x: Numbers, start: int, at: int) -> None:
            with borrow(len(searches), x[0].size) as scratch:
                hits, n_hits = scratch.view(np.uint32), np.zeros(len(searches), np.int64)
                self.keys.window(x, start, kinds, lows, widths, found.above, hits, n_hits)
                found.add(at, hits, n_hits)

        first, *others = self.stream.fold(new, look)
        first.join(others)
        missed = [search for number, search in enumerate(searches) if not search.found(first, number, self.size)]
        for number, search in enumerate(searches):
            if search.cut is not None and search.cut.ties < 0:
                ties = first.ties(number, search.cut.threshold - search.low, self.stream.n_tiles)
                if ties is not None:
                    self._seen[id(search)] = ties
        return missed

    def _place(self, searches: list[_Search]) -> None:
        """Find the places where enough of the equal keys have been seen."""
        if not searches:
            return

        def count(x: Numbers, start: int) -> Counts:
            counts = np.zeros((len(searches), 1), np.int64)

            def use(keys: Keys) -> None:
                for search, row in zip(searches, counts, strict=True):
                    assert search.cut is not None
                    self.kernels.count_equal(keys[search.kind], np.uint32(search.cut.threshold), row)

            self._fill(x, start, use)
            return counts[:, 0]

        if not all(id(search) in self._seen for search in searches):
            for search, column in zip(searches, np.array(self.stream.map(count)).T, strict=True):
                self._seen[id(search)] = column.tolist()
        for search in searches:
            assert search.cut is not None
            seen = np.cumsum(self._seen[id(search)])
            tile = int(np.searchsorted(seen, search.wanted_ties))
            before = int(seen[tile - 1]) if tile else 0
            places: list[int] = []

            def find(x: Numbers, start: int, search: _Search = search, places: list[int] = places) -> None:
                def use(keys: Keys) -> None:
                    assert search.cut is not None
                    places.extend(np.flatnonzero(keys[search.kind] == search.cut.threshold).tolist())

                self._fill(x, start, use)

            self.stream.map(find, [tile])
            first = tile * self.stream.tile_rows * self.stream.n_cols
            search.cut = Cut(search.cut.threshold, first + places[search.wanted_ties - before - 1] + 1)
