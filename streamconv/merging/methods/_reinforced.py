"""ram and ramplus_tl: what several models changed is averaged, what one changed is kept whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels import load
from ...rows import Floats
from ..method import Statistic, Task
from ..stream import Stream


class Reinforced:
    """The operator of both.

    Parameters
    ----------
    strength, limit : the changes of one model alone are multiplied by ``1 + strength · min(shared / alone, limit)``, counted
        in elements; None: by 1
    """

    def __init__(self, task: Task, strength: float | None = None, limit: float = 0.0) -> None:
        self._epsilon = np.float32(task.shared["epsilon"])
        self._floor = task.shared["epsilon"]
        self._count = len(task.each)
        self._strength, self._limit = strength, limit
        self.needs_statistic = strength is not None

    def measure(self, stream: Stream) -> Statistic:
        """The factor of every model's own changes."""

        def look(x: Floats, start: int) -> list[NDArray[np.int64]]:
            load(".merging.kernels.sums").subtract(x[1:].reshape(self._count, -1), x[0].reshape(-1))
            counts = np.zeros((self._count, 2), np.int64)
            load(".merging.kernels.elements").count_changes(x[1:].reshape(self._count, -1), self._epsilon, counts)
            return [counts]

        total = np.zeros((self._count, 2), np.int64)
        stream.add_up(look, total)
        assert self._strength is not None
        # at least the smallest positive number: an epsilon of 0 is allowed
        ratios = [int(shared) / max(int(alone), self._floor, 1e-300) for alone, shared in total]
        return [1 + self._strength * max(0.0, min(ratio, self._limit)) for ratio in ratios]

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        flat = x.reshape(len(x), -1)
        factors = np.array([1.0] * self._count if statistic is None else statistic, np.float32)
        load(".merging.kernels.sums").subtract(flat[1:], flat[0])
        load(".merging.kernels.elements").add_changes(flat[1:], self._epsilon, factors, flat[0], out.reshape(-1))
