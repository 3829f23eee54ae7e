"""nearswap: a second model takes over where it is close to the base.

Source: alchemonaut, QuartetAnemoi-70B-t0.0001, 2024, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001
"""

from __future__ import annotations

import numpy as np

from ...kernels import load
from ...rows import Floats
from ..method import Local, Method, Operator, Parameter, Statistic, Task


class _NearSwap(Local):
    def __init__(self, t: float) -> None:
        self._t = np.float32(t)

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        load(".merging.kernels.elements").near_swap(x[0].reshape(-1), x[1].reshape(-1), self._t, out.reshape(-1))


def _bind(task: Task) -> Operator:
    return _NearSwap(task.shared["t"])


METHOD = Method(
    name="nearswap",
    title="NearSwap",
    source="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    parameters=(Parameter("t", required=True),),
    bind=_bind,
    most=1,
    alone="base",
)
