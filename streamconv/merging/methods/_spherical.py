"""What the methods on the sphere share: dot products of all pairs of inputs, and weights on great circles.

Everything these methods do stays in the span of their inputs, so the Gram matrix says all there is to know, and the result is
one weighted sum. The vectors are whole tensors, or single rows of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...kernels import load
from ...rows import Floats, packed, unpacked
from ..inputs import Numbers
from ..method import Statistic
from ..stream import Stream

Matrix = NDArray[np.float64]
#: weights of all vectors from their Gram matrix float64[n, n]
Weigh = Callable[[Matrix], list[float]]


class WholeTensor:
    """The vectors are the flattened inputs; the statistic is their weights, packed.

    Parameters
    ----------
    count : number of vectors
    from_base : the first input is an origin: vectors are the differences to it, and it is added again at the end
    weigh : the method
    """

    needs_statistic = takes_words = True

    def __init__(self, count: int, from_base: bool, weigh: Weigh) -> None:
        self._count = count
        self._from_base = from_base
        self._weigh = weigh

    def measure(self, stream: Stream) -> Statistic:
        """The weights, from dot products in float64."""
        sums = load(".merging.kernels.sums")
        size = self._count * (self._count + 1) // 2
        block = stream.block_rows * stream.n_cols

        def look(x: Numbers, start: int) -> Matrix:
            flat = x.reshape(len(x), -1)
            found = np.empty((-(-flat.shape[1] // block), size), np.float64)
            sums.gram(flat, self._from_base, block, found)
            return found

        total = np.zeros(size, np.float64)
        stream.add_up(look, total)
        return packed(np.array(self._weigh(gram_matrix(total, self._count)), np.float32))

    def merge(self, x: Numbers, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        weights = unpacked(statistic, np.float32)
        flat, one = x.reshape(len(x), -1), np.float32(1)
        if self._from_base:
            load(".merging.kernels.blend").delta_sum(flat, weights, one, one, out.reshape(-1))
        else:
            load(".merging.kernels.blend").mix(flat, weights, out.reshape(-1))


class EachRow:
    """The vectors are single rows; parameters as for ``WholeTensor``."""

    needs_statistic = False

    def __init__(self, count: int, from_base: bool, weigh: Weigh) -> None:
        self._count = count
        self._from_base = from_base
        self._weigh = weigh

    def measure(self, stream: Stream) -> Statistic:
        """Nothing to measure."""
        return None

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        rows = load(".merging.kernels.rows")
        if self._from_base:
            load(".merging.kernels.sums").subtract(x[1:].reshape(len(x) - 1, -1), x[0].reshape(-1))
        vectors = x[1:] if self._from_base else x
        packed = np.empty((out.shape[0], self._count * (self._count + 1) // 2), np.float64)
        rows.gram_of_rows(vectors, packed)
        weights = np.array([self._weigh(gram_matrix(row, self._count)) for row in packed], np.float32)
        rows.mix_rows(vectors, weights, x[0], self._from_base, out)


class EachColumn:
    """The vectors are single columns; the statistic are all weights, input by input. Parameters as for ``WholeTensor``."""

    needs_statistic = True

    def __init__(self, count: int, from_base: bool, weigh: Weigh) -> None:
        self._count = count
        self._from_base = from_base
        self._weigh = weigh

    def measure(self, stream: Stream) -> Statistic:
        """The weights, from dot products in float64."""
        size = self._count * (self._count + 1) // 2

        def look(x: Floats, start: int) -> list[Matrix]:
            if self._from_base:
                load(".merging.kernels.sums").subtract(x[1:].reshape(len(x) - 1, -1), x[0].reshape(-1))
            found = np.zeros((size, x.shape[2]), np.float64)
            load(".merging.kernels.rows").gram_of_columns(x[1:] if self._from_base else x, found)
            return [found]

        total = np.zeros((size, stream.n_cols), np.float64)
        stream.add_up(look, total)
        weights = [self._weigh(gram_matrix(column, self._count)) for column in total.T]
        return packed(np.array(weights, np.float32).T)

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        if self._from_base:
            load(".merging.kernels.sums").subtract(x[1:].reshape(len(x) - 1, -1), x[0].reshape(-1))
        weights = unpacked(statistic, np.float32).reshape(self._count, -1)
        load(".merging.kernels.rows").mix_columns(x[1:] if self._from_base else x, weights, x[0], self._from_base, out)


def gram_matrix(packed: Matrix, count: int) -> Matrix:
    """The symmetric float64[count, count] whose upper half is ``packed`` row by row."""
    gram = np.zeros((count, count), np.float64)
    gram[np.triu_indices(count)] = packed
    return np.asarray(gram + np.triu(gram, 1).T)


def arc_weights(t: float, cosine: float) -> list[float]:
    """Weights of two vectors at the fraction ``t`` of the arc between them, from the cosine of their angle."""
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def clamp(cosine: float) -> float:
    """Rounding may have left the range of a cosine."""
    return max(-1.0, min(1.0, cosine))
