"""arcee_fusion: take over from a second model what matters most, element by element.

Source: Arcee AI's own method of 2025, described with mergekit: https://arxiv.org/abs/2403.13257 is the paper on that.
An element matters as much as it differs, times the Kullback-Leibler divergence of the softmax of its row in both models. It is
taken over from 1.5 interquartile ranges above the median on. The quartiles are exact for tensors of any size.
"""

from __future__ import annotations

import numpy as np

from ...kernels import load
from ...rows import Floats
from ..method import Method, Operator, Statistic, Task
from ..scratch import borrow
from ..select import Keys, MadeKeys, select
from ..stream import Stream

_QUARTILES = (0.25, 0.5, 0.75)


class _Fusion:
    needs_statistic = True

    def measure(self, stream: Stream) -> Statistic:
        """The threshold of importance."""
        size = stream.n_rows * stream.n_cols
        ranks = [size - int(share * (size - 1)) for share in _QUARTILES]
        cuts = select(stream, MadeKeys(_importance), [ranks], places=False)[0]
        low, middle, high = (np.array([cut.threshold], np.uint32).view(np.float32)[0] for cut in cuts)
        return float(middle + np.float32(1.5) * (high - low))

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        with borrow(x[0].size) as importance:
            _importance(x, start, importance.view(np.uint32).reshape(1, -1))
            load(".merging.kernels.elements").take_over(
                x[0].reshape(-1), x[1].reshape(-1), importance, np.float32(statistic), out.reshape(-1)
            )


def _importance(x: Floats, start: int, keys: Keys) -> None:
    kernels = load(".merging.kernels.divergence")
    with borrow(2 * x.shape[2]) as scratch:
        spare = np.empty((2, x.shape[2]), np.float64) if scratch.nbytes < 16 * x.shape[2] else scratch.view(np.float64)
        kernels.importance(x[0], x[1], spare.reshape(2, -1), keys[0].view(np.float32).reshape(x.shape[1:]))


def _bind(task: Task) -> Operator:
    return _Fusion()


METHOD = Method(
    name="arcee_fusion",
    title="Arcee Fusion",
    source="",
    parameters=(),
    bind=_bind,
    most=1,
    alone="copy",
)
