"""model_stock: from the base towards the mean of fine-tunes, as far as the angle between them says.

Source: Jang, Yun, Han, Model Stock, 2024, https://arxiv.org/abs/2403.19522
"""

from __future__ import annotations

import math
from itertools import combinations

from ..method import Method, Operator, Parameter, Task
from ._spherical import EachRow, Matrix, WholeTensor, clamp

_TINY = 1e-6


def _bind(task: Task) -> Operator:
    n = len(task.each)

    def weigh(gram: Matrix) -> list[float]:
        norms = [math.sqrt(gram[i, i]) for i in range(n)]
        pairs = list(combinations(range(n), 2))
        cosine = sum(clamp(gram[i, j] / max(norms[i] * norms[j], _TINY)) for i, j in pairs) / len(pairs)
        divisor = 1 + (n - 1) * cosine
        t = n * cosine / divisor if abs(divisor) >= _TINY else 0.0
        return [t / n] * n

    return (EachRow if task.shared["filter_wise"] else WholeTensor)(n, True, weigh)


METHOD = Method(
    name="model_stock",
    title="Model Stock",
    source="https://arxiv.org/abs/2403.19522",
    parameters=(Parameter("filter_wise", "bool", False),),
    bind=_bind,
    least=2,
    alone="base",
)
