"""linear: the weighted mean of the inputs.

Source: Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482
"""

from __future__ import annotations

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ..inputs import Numbers
from ..method import Local, Method, Operator, Parameter, Statistic, Task


class WeightedSum(Local):
    """``Σ weights[i] x[i] / divisor``, added up in the order of the inputs."""

    takes_words = True

    def __init__(self, weights: list[float], divisor: float = 1.0) -> None:
        self._weights = np.array(weights, np.float32)
        self._divisor = np.float32(divisor)

    def merge(self, x: Numbers, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        load(".merging.kernels.blend").weighted_sum(
            x.reshape(len(x), -1), self._weights, self._divisor, out.reshape(-1)
        )


def _bind(task: Task) -> Operator:
    weights = task.column("weight")
    total = sum(weights)
    if not task.shared["normalize"]:
        return WeightedSum(weights)
    if not total:
        raise BadInput(
            f"tensor {task.name!r}: the weights {', '.join(f'{w:g}' for w in weights)} sum to 0",
            "Change a weight, or set normalize: false.",
        )
    return WeightedSum(weights, total)


METHOD = Method(
    name="linear",
    title="Linear",
    source="https://arxiv.org/abs/2203.05482",
    parameters=(Parameter("weight", required=True, scope="input"), Parameter("normalize", "bool", True)),
    bind=_bind,
    base="ordinary",
)
