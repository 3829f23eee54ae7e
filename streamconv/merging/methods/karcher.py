"""karcher: the Riemannian mean of the directions of several models, at their mean length.

Source: Karcher, Riemannian center of mass and mollifier smoothing, 1977, https://doi.org/10.1002/cpa.3160300502
The mean moves within the span of the inputs, so the iteration runs on their Gram matrix.
"""

from __future__ import annotations

import math

import numpy as np

from ..method import Method, Operator, Parameter, Task
from ._spherical import Matrix, WholeTensor

#: opposite vectors have no one shortest arc between them
_TINY_SINE = 1e-12


def _bind(task: Task) -> Operator:
    n, max_iter, tol = len(task.each), task.shared["max_iter"], task.shared["tol"]

    def weigh(gram: Matrix) -> list[float]:
        norms = np.sqrt(np.diag(gram))
        used = np.flatnonzero(norms > tol)
        if not len(used):
            return [0.0] * n
        cosines = gram[np.ix_(used, used)] / np.outer(norms[used], norms[used])
        mean = _mean(cosines, max_iter, tol)
        weights = np.zeros(n)
        weights[used] = mean / norms[used] * (norms.sum() / n)
        return [float(w) for w in weights]

    return WholeTensor(n, False, weigh)


def _mean(cosines: Matrix, max_iter: int, tol: float) -> Matrix:
    """The mean of unit vectors with equal weights, as a combination of them."""
    n = len(cosines)

    def length(v: Matrix) -> float:
        return math.sqrt(max(0.0, float(v @ cosines @ v)))

    mean = np.full(n, 1 / n)
    size = length(mean)
    mean = mean / size if size >= tol else np.eye(n)[0]
    for _ in range(max_iter):
        tangent = np.zeros(n)
        for i, cosine in enumerate(np.clip(cosines @ mean, -1, 1)):
            angle = math.acos(cosine)
            if angle >= tol and math.sin(angle) > _TINY_SINE:
                step = angle / math.sin(angle) / n
                tangent[i] += step
                tangent -= step * cosine * mean
        size = length(tangent)
        if size < tol:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * tangent
        mean /= length(mean)
    return mean


METHOD = Method(
    name="karcher",
    title="Karcher Mean",
    source="https://doi.org/10.1002/cpa.3160300502",
    parameters=(Parameter("max_iter", "int", 10), Parameter("tol", default=1e-5)),
    bind=_bind,
    base="ordinary",
)
