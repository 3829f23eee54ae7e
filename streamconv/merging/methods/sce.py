"""sce: select the elements that vary most, calculate a weight for every model, erase what goes against the majority.

Source: Wan et al., FuseChat, 2024, https://arxiv.org/abs/2408.07990
Of elements of equal variance at the threshold the first ones are kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...kernels import load
from ...rows import Floats
from ..method import Method, Operator, Parameter, Statistic, Task
from ..scratch import borrow
from ..select import Cut, Keys, MadeKeys, select
from ..stream import Stream

_TINY = 1e-6


class _Sce:
    needs_statistic = True

    def __init__(self, task: Task) -> None:
        self._count = len(task.each)
        self._share: float = task.shared["select_topk"]

    def measure(self, stream: Stream) -> Statistic:
        """``cut``: threshold and place of the variances that are kept, or None; ``weights`` of the models."""
        cut = self._cut(stream) if self._share < 1 else None

        def squares(x: Floats, start: int) -> list[NDArray[np.float64]]:
            d = self._selected(x, start, cut)
            found = np.empty((self._count, 1, 1), np.float64)
            for row, total in zip(d, found, strict=True):
                load(".merging.kernels.sums").gram(row.reshape(1, -1), False, len(row), total)
            return [found[:, 0, 0]]

        total = np.zeros(self._count, np.float64)
        stream.add_up(squares, total)
        means = total / (stream.n_rows * stream.n_cols)
        whole = float(means.sum())
        weights = means / whole if whole >= _TINY else np.full(self._count, 1 / self._count)
        return {"cut": None if cut is None else [cut.threshold, cut.ties], "weights": weights.tolist()}

    def _cut(self, stream: Stream) -> Cut:
        elements = load(".merging.kernels.elements")

        def keys_of(x: Floats, start: int, keys: Keys) -> None:
            load(".merging.kernels.sums").subtract(x[1:].reshape(self._count, -1), x[0].reshape(-1))
            elements.variance_keys(x[1:].reshape(self._count, -1), keys[0])

        def varying(x: Floats, start: int) -> int:
            with borrow(x[0].size) as scratch:
                keys = scratch.view(np.uint32)
                keys_of(x, start, keys.reshape(1, -1))
                return int(np.count_nonzero(keys))

        keep = int(self._share * sum(stream.map(varying))) if self._share > 0 else 0
        return select(stream, MadeKeys(keys_of), [[keep]])[0][0]

    def _selected(self, x: Floats, start: int, cut: Cut | None) -> Floats:
        """The differences to the base, cleared where they do not vary enough; float32[n_models, n]."""
        d = x[1:].reshape(self._count, -1)
        load(".merging.kernels.sums").subtract(d, x[0].reshape(-1))
        if cut is not None:
            with borrow(d.shape[1]) as scratch:
                keys = scratch.view(np.uint32)
                load(".merging.kernels.elements").variance_keys(d, keys)
                for row in d:
                    load(".merging.kernels.ranks").keep_top(row, keys, *cut.local(start * x.shape[2], d.shape[1]))
        return d

    def merge(self, x: Floats, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        cut = None if statistic["cut"] is None else Cut(*statistic["cut"])
        d = self._selected(x, start, cut)
        weights = np.array(statistic["weights"], np.float32)
        load(".merging.kernels.elements").erase_minority(d, weights, x[0].reshape(-1), out.reshape(-1))


def _bind(task: Task) -> Operator:
    return _Sce(task)


METHOD = Method(
    name="sce",
    title="SCE",
    source="https://arxiv.org/abs/2408.07990",
    parameters=(Parameter("select_topk", default=1.0), Parameter("int8_mask", "bool", False)),
    bind=_bind,
    least=0,
)
