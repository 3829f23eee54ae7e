"""Pairs of neighbours become one, the best first, as byte-pair encoding and SentencePiece do it; where no pair can ever meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .characters import code_points

#: how much a pair is wanted, the least first; None: not at all
Rank = Callable[[str, str], "float | None"]


def merged(text: str, rank: Rank) -> list[str]:
    """The characters of ``text``, put together pair by pair: the lowest rank first, of equals the one further left.

    Takes O(n log n) for n characters.
    """
    symbols = list(text)
    last = len(symbols)
    after, before = list(range(1, last + 1)), list(range(-1, last - 1))
    queue = [(r, i, a, b) for i, (a, b) in enumerate(pairwise(text)) if (r := rank(a, b)) is not None]
    heapify(queue)
    while queue:
        _, i, left, right = heappop(queue)
        j = after[i]
        if symbols[i] != left or j == last or symbols[j] != right:
            continue  # one of them has become part of another pair
        symbols[i], symbols[j] = left + right, ""
        after[i] = j = after[j]
        if j < last:
            before[j] = i
            if (r := rank(left + right, symbols[j])) is not None:
                heappush(queue, (r, i, left + right, symbols[j]))
        h = before[i]
        if h >= 0 and (r := rank(symbols[h], left + right)) is not None:
            heappush(queue, (r, h, symbols[h], left + right))
    return [symbol for symbol in symbols if symbol]


class Seams:
    """The places of a text over which nothing of a vocabulary reaches, so that each part can be merged, and kept, by itself.

    Parameters
    ----------
    texts : everything that merging can arrive at
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._pairs = np.unique(_pairs("\0".join(texts)))

    def parts(self, text: str) -> list[str]:
        """``text`` cut wherever its two neighbours are neighbours in no text of the vocabulary."""
        pairs = _pairs(text)
        if not len(self._pairs) or not len(pairs):
            return list(text)
        found = self._pairs[np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)] == pairs
        cuts = [0, *(np.flatnonzero(~found) + 1).tolist(), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]


def _pairs(text: str) -> npt.NDArray[np.uint64]:
    """uint64[len(text) - 1]: two neighbours each."""
    points = code_points(text).astype(np.uint64)
    pairs: npt.NDArray[np.uint64] = points[:-1] << np.uint64(32) | points[1:]
    return pairs
