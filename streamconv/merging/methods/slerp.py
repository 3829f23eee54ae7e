"""slerp: along the arc between two models, tensor by tensor.

Source: Shoemake, Animating rotation with quaternion curves, 1985, https://doi.org/10.1145/325165.325242
"""

from __future__ import annotations

import math

from ..method import Method, Operator, Parameter, Task
from ._spherical import Matrix, WholeTensor, arc_weights, clamp

#: vectors closer than this (or closer to opposite) are mixed along the straight line
_STRAIGHT = 0.9995
_TINY = 1e-8


def _bind(task: Task) -> Operator:
    t: float = task.shared["t"]

    def weigh(gram: Matrix) -> list[float]:
        norms = [math.sqrt(gram[i, i]) for i in (0, 1)]
        lengths = [norm if norm > _TINY else 1.0 for norm in norms]
        cosine = clamp(gram[0, 1] / (lengths[0] * lengths[1]))
        return [1 - t, t] if abs(cosine) > _STRAIGHT else arc_weights(t, cosine)

    return WholeTensor(2, False, weigh)  # the base is one end of the arc, not an origin


METHOD = Method(
    name="slerp",
    title="SLERP",
    source="https://doi.org/10.1145/325165.325242",
    parameters=(Parameter("t", required=True),),
    bind=_bind,
    most=1,
    alone="copy",
)
