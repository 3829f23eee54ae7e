"""Ways to keep a share of a task vector.

A density of 1 keeps everything and needs nothing; 0 and less keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ..counter_random import CounterRandom
from ..method import Task
from ..scratch import borrow
from ..select import Cut

#: as a bound it keeps everything
_LARGEST = 0x7FFFFFFF
#: a limit of random words that all of them are below
_ALWAYS = 1 << 32


class Sparsifier:
    """Keeps a share of one task vector: by itself all of it.

    Parameters
    ----------
    ranks : sizes of the sets of largest elements that must be known: what is kept belongs to the first, and not to the second
    key : of the generator of random words, one an element
    limit : what a word has to be below for its element to be kept, up to 2^32

    Attributes
    ----------
    chance : uint64[3], key and limit, as the kernel ``combine`` takes them
    """

    def __init__(self, ranks: Sequence[int] = (), key: Sequence[int] = (0, 0), limit: int = _ALWAYS) -> None:
        self.ranks = list(ranks)
        self.chance = np.array([*key, limit], np.uint64)

    @property
    def keeps_all(self) -> bool:
        """Whether there is nothing to do."""
        return not self.ranks and int(self.chance[2]) == _ALWAYS


def nothing() -> Sparsifier:
    """Keeps nothing."""
    return Sparsifier(limit=0)


def bounds(cuts: Sequence[Sequence[Cut]], first: int, size: int) -> NDArray[np.int32]:
    """Which keys the elements from ``first`` on are kept with, in segments of constant bounds.

    Parameters
    ----------
    cuts : for every input the set its elements must belong to and, if there are two, the set they must not belong to

    Returns
    -------
    int32[n_segments, 1 + 2 * n_inputs] : see the kernel ``combine``
    """
    places = {min(max(cut.ties - first, 0), size) for own in cuts for cut in own}
    ends = sorted({place for place in places if place > 0} | {size})
    found = np.empty((len(ends), 1 + 2 * len(cuts)), np.int32)
    at = first
    for row, end in zip(found, ends, strict=True):
        row[0] = end
        for i, own in enumerate(cuts):
            limits = [min(cut.threshold, _LARGEST) - (at < cut.ties) for cut in own]
            row[1 + 2 * i : 3 + 2 * i] = (*limits, *(-1, _LARGEST)[len(limits) :])
        at = first + end
    return found


class RankBernoulli(Sparsifier):
    """Keeps each element of a row with a probability that grows with its rank in the row, ``density`` in the mean."""

    def __init__(self, density: float, epsilon: float, rng: CounterRandom) -> None:
        super().__init__()
        self._range = density - epsilon, density + epsilon
        self._rng = rng

    @property
    def keeps_all(self) -> bool:
        """See ``Sparsifier``."""
        return False

    def apply(self, d: Floats, start: int) -> None:
        """Clear what is not kept of ``d`` float32[n_rows, n_cols], the rows from ``start`` on."""
        with borrow(*d.shape) as scratch:
            words = scratch.view(np.uint32)
            self._rng.words(start * d.shape[1], words.reshape(-1))
            load(".merging.kernels.random").keep_by_rank(d, words, *self._range)


def by_magnitude(task: Task, number: int) -> Sparsifier:
    """TIES: the ``density`` share of the largest; at least one for a positive density."""
    density = task.each[number]["density"]
    if not 0 < density < 1:
        return Sparsifier() if density >= 1 else nothing()
    return Sparsifier([max(1, int(density * task.size))])


def without_outliers(task: Task, number: int) -> Sparsifier:
    """Breadcrumbs: the ``density`` share below the ``gamma`` share of the largest, which is cut short at the small end."""
    density = task.each[number]["density"]
    if not 0 < density < 1:
        return Sparsifier() if density >= 1 else nothing()
    keep, top = int(density * task.size), int(task.each[number]["gamma"] * task.size)
    bottom = max(0, task.size - keep - top)
    if not keep:
        return nothing()
    first, last = task.size - bottom - keep, task.size - bottom
    return Sparsifier([last, first] if first else [last])


def by_chance(task: Task, number: int) -> Sparsifier:
    """DARE."""
    density = task.each[number]["density"]
    if not 0 < density < 1:
        return Sparsifier() if density >= 1 else nothing()
    key = CounterRandom(task.seed, task.stream, task.name, number).key
    return Sparsifier(key=key.tolist(), limit=int(density * _ALWAYS))


def by_rank_and_chance(task: Task, number: int) -> Sparsifier:
    """DELLA."""
    density, epsilon = task.each[number]["density"], task.each[number]["epsilon"]
    if not 0 < density < 1:
        return Sparsifier() if density >= 1 else nothing()
    if not (density - epsilon > 0 and density + epsilon < 1):
        raise BadInput(
            f"tensor {task.name!r}, model {task.models[task.first + number]}: density {density:g} ± epsilon {epsilon:g} "
            "leaves the range of probabilities",
            "Keep density - epsilon above 0 and density + epsilon below 1, or set density to 1.",
        )
    return RankBernoulli(density, epsilon, CounterRandom(task.seed, task.stream, task.name, number))
