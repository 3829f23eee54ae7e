"""multislerp: the weighted mean direction of several models, at their weighted mean length.

Source: the barycenter on the sphere in one step, Buss, Fillmore, Spherical averages, 2001,
https://doi.org/10.1145/502122.502124
The step's tangent ``τ = Σ w_i (u_i - <u_i, m> m)`` at the normalised mean ``m`` of the unit vectors ``u_i`` is zero but for
rounding, because ``Σ w_i u_i`` is along ``m``; so the mean direction is the answer.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import BadInput
from ..method import Method, Operator, Parameter, Task
from ._spherical import Matrix, WholeTensor
from .linear import WeightedSum


def _bind(task: Task) -> Operator:
    weights, eps = task.column("weight"), task.shared["eps"]
    if len(weights) == 1:
        return WeightedSum([0.0, 1.0] if task.has_base else [1.0])
    if task.shared["normalize_weights"]:
        total = sum(weights)
        if not total:
            raise BadInput(
                f"tensor {task.name!r}: the weights sum to 0", "Change a weight, or set normalize_weights: false."
            )
        weights = [w / total for w in weights]

    def weigh(gram: Matrix) -> list[float]:
        norms = np.sqrt(np.diag(gram))
        mean = np.array(weights) / (norms + eps)
        length = math.sqrt(max(0.0, float(mean @ gram @ mean)))
        if length < eps:
            if len(weights) == 2:
                return weights
            raise BadInput(
                f"tensor {task.name!r}: the models point in directions that cancel out, so they have no mean direction",
                "Change the weights.",
            )
        scale = float(np.array(weights) @ norms) * math.cos(eps) / length
        return [float(w) for w in mean * scale]

    return WholeTensor(len(weights), task.has_base, weigh)


METHOD = Method(
    name="multislerp",
    title="Multi-SLERP",
    source="https://doi.org/10.1145/502122.502124",
    parameters=(
        Parameter("weight", required=True, scope="other"),
        Parameter("normalize_weights", "bool", True),
        Parameter("eps", default=1e-8),
    ),
    bind=_bind,
    base="optional",
)
