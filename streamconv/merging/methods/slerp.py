"""slerp: along the arc between two models, tensor by tensor.

Source: Shoemake, Animating rotation with quaternion curves, 1985, https://doi.org/10.1145/325165.325242
"""

from __future__ import annotations

import math

from ._spherical import Matrix, Spherical, arc_weights
from .base import Method, Operator, Parameter, Task

#: vectors closer than this (or closer to opposite) are mixed along the straight line
_STRAIGHT = 0.9995
_TINY = 1e-8


class _Slerp(Spherical):
    def __init__(self, t: float) -> None:
        super().__init__(2, from_base=False)  # the base is one end of the arc, not an origin
        self._t = t

    def weights(self, gram: Matrix) -> list[float]:
        """Of the base and of the other model."""
        norms = [math.sqrt(gram[i, i]) for i in (0, 1)]
        lengths = [norm if norm > _TINY else 1.0 for norm in norms]
        cosine = max(-1.0, min(1.0, gram[0, 1] / (lengths[0] * lengths[1])))
        if abs(cosine) > _STRAIGHT:
            return [1 - self._t, self._t]
        return arc_weights(self._t, cosine)


def _bind(task: Task) -> Operator:
    return _Slerp(task.shared["t"])


METHOD = Method(
    name="slerp",
    title="SLERP",
    source="https://doi.org/10.1145/325165.325242",
    parameters=(Parameter("t", required=True),),
    bind=_bind,
    most=1,
    alone="copy",
)
