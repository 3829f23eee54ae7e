"""nuslerp: slerp between two models, or between their differences to a base, with weights that are normalised.

Source: Goddard et al., MergeKit, 2024, https://arxiv.org/abs/2403.13257
Vectors are whole tensors, or with ``nuslerp_flatten: false`` the rows of matrices, or with ``nuslerp_row_wise: true`` beside
it their columns.
"""

from __future__ import annotations

import math

from ...errors import BadInput
from ..method import Method, Operator, Parameter, Task
from ._spherical import EachColumn, EachRow, Matrix, WholeTensor, arc_weights, clamp

_TINY_SUM = 1e-6
_TINY_NORM = 1e-7
_COLINEAR = 1e-16


def _bind(task: Task) -> Operator:
    first, second = task.column("weight")
    t = second / (first + second) if abs(first + second) >= _TINY_SUM else 0.5

    def weigh(gram: Matrix) -> list[float]:
        norms = [max(math.sqrt(gram[i, i]), _TINY_NORM) for i in (0, 1)]
        cosine = clamp(gram[0, 1] / (norms[0] * norms[1]))
        return [1 - t, t] if 1 - cosine * cosine <= _COLINEAR else arc_weights(t, cosine)

    if task.shared["nuslerp_flatten"] or task.n_dims < 2:
        return WholeTensor(2, task.has_base, weigh)
    if not task.shared["nuslerp_row_wise"]:
        return EachRow(2, task.has_base, weigh)
    if task.n_dims > 2:
        raise BadInput(
            f"tensor {task.name!r} has {task.n_dims} dimensions; nuslerp_row_wise is for matrices",
            "Turn it off for such tensors: nuslerp_row_wise: [{filter: NAME_PART, value: false}, {value: true}].",
        )
    return EachColumn(2, task.has_base, weigh)


METHOD = Method(
    name="nuslerp",
    title="NuSLERP",
    source="https://arxiv.org/abs/2403.13257",
    parameters=(
        Parameter("weight", required=True, scope="other"),
        Parameter("nuslerp_flatten", "bool", True),
        Parameter("nuslerp_row_wise", "bool", False),
    ),
    bind=_bind,
    base="optional",
    least=2,
    most=2,
    alone="copy",
)
