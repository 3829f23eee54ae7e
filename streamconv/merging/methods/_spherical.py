"""What the methods on the sphere share: the Gram matrix as statistic, and weights on great circles.

Everything these methods do stays in the span of their inputs, so the dot products of all pairs say all there is to know; the
result is one weighted sum.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...rows import Floats
from ..kernels import load
from ..stream import Stream
from .base import Statistic

Matrix = NDArray[np.float64]


class Spherical:
    """An operator whose result is a weighted sum of vectors, with weights made from their Gram matrix.

    A subclass gives ``weights``.

    Parameters
    ----------
    count : number of vectors
    from_base : the first input is an origin: vectors are the differences to it, and it is added again at the end
    """

    needs_statistic = True

    def __init__(self, count: int, from_base: bool) -> None:
        self._count = count
        self._from_base = from_base

    def measure(self, stream: Stream) -> Statistic:
        """The dot products of all pairs of vectors, float64: those of the first with all, of the second with …"""
        sums = load("sums")
        size = self._count * (self._count + 1) // 2

        def look(x: Floats, start: int) -> NDArray[np.float64]:
            flat = x.reshape(len(x), -1)
            if self._from_base:
                sums.subtract(flat[1:], flat[0])
                flat = flat[1:]
            found = np.empty(size, np.float64)
            sums.gram(flat, found)
            return found

        total = np.zeros(size, np.float64)
        for found in stream.map(look):
            total += found
        return total.tolist()

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        weights = np.array(self.weights(gram_matrix(statistic, self._count)), np.float32)
        flat, one = x.reshape(len(x), -1), np.float32(1)
        if self._from_base:
            load("blend").delta_sum(flat, weights, one, one, out.reshape(-1))
        else:
            load("blend").weighted_sum(flat, weights, one, out.reshape(-1))

    def weights(self, gram: Matrix) -> list[float]:
        """The weight of every vector.

        Parameters
        ----------
        gram : float64[n, n] dot products
        """
        raise NotImplementedError


def gram_matrix(packed: list[float], count: int) -> Matrix:
    """The symmetric float64[count, count] whose upper half is ``packed`` row by row."""
    gram = np.zeros((count, count), np.float64)
    gram[np.triu_indices(count)] = packed
    return np.asarray(gram + np.triu(gram, 1).T)


def arc_weights(t: float, cosine: float) -> list[float]:
    """Weights of two vectors at the fraction ``t`` of the arc between them, from the cosine of their angle."""
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]
