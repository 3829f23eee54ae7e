"""The arithmetic of task vectors, which eight methods share.

    d_i = x_i - b      s_i = sparsify(d_i)      q_i = w_i s_i      y = b + lambda Σ q_i [/ Σ w_i]

With a vote only those ``q_i`` count, element by element, that have the sign of ``Σ q_i``. ``rescale`` gives ``s_i`` the sum
of magnitudes that ``d_i`` had.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...kernels import load
from ...rows import Floats
from ..inputs import Numbers
from ..method import Method, Operator, Parameter, Statistic, Task
from ..select import Cut, Differences, select
from ..stream import Stream
from ._sparsify import RankBernoulli, Sparsifier, bounds

_SMALLEST_SUM = 1e-7


class TaskVectors:
    """The operator of one tensor.

    Parameters
    ----------
    sparsifiers : one for every input but the base, which comes first
    vote : majority sign
    """

    def __init__(self, task: Task, sparsifiers: list[Sparsifier], vote: bool) -> None:
        self._weights = np.array(task.column("weight"), np.float32)
        self._vote = vote
        self._normalize = bool(task.shared["normalize"])
        self._factor = np.float32(task.shared["lambda"])
        self._by_row = [(i, s) for i, s in enumerate(sparsifiers) if isinstance(s, RankBernoulli)]
        #: where differences are never stored, but for those that are thinned out row by row
        self.takes_words = not self._by_row
        self._whole = np.array([sparsifier.keeps_all for sparsifier in sparsifiers], bool)
        self._rescales = bool(task.shared["rescale"]) and not self._whole.all()
        self._ranks = [sparsifier.ranks for sparsifier in sparsifiers]
        self._chances = np.array([s.chance for s in sparsifiers], np.uint64).reshape(-1, 3)

    @property
    def needs_statistic(self) -> bool:
        """Whether thresholds or factors are wanted."""
        return any(self._ranks) or self._rescales

    def measure(self, stream: Stream) -> Statistic:
        """``cuts``: for every input threshold and place of its ranks; ``scales``: its factor."""
        cuts: list[list[Cut]] = [[] for _ in self._ranks]
        ranked = [i for i, ranks in enumerate(self._ranks) if ranks]
        if ranked:
            keys = Differences([i + 1 for i in ranked])
            for i, found in zip(ranked, select(stream, keys, [self._ranks[i] for i in ranked]), strict=True):
                cuts[i] = found
        scales = self._scales(stream, cuts) if self._rescales else [1.0] * len(cuts)
        return {"cuts": [[[cut.threshold, cut.ties] for cut in row] for row in cuts], "scales": scales}

    def _scales(self, stream: Stream, cuts: list[list[Cut]]) -> list[float]:
        """``Σ|d| / Σ|s|`` of every input; 1 where either is next to nothing."""
        sparse = load(".merging.kernels.sparse")
        none = np.zeros(len(cuts), np.uint8)
        block = stream.block_rows * stream.n_cols

        def look(x: Numbers, start: int) -> NDArray[np.float64]:
            flat, first = x.reshape(len(x), -1), start * stream.n_cols
            size = flat.shape[1]
            found, kept = np.empty((-(-size // block), 2, len(cuts)), np.float64), bounds(cuts, first, size)
            sparse.magnitudes(flat, none, kept, self._chances, first, block, found)
            if self._by_row:
                whole = found[:, 0].copy()
                sparse.magnitudes(flat, self._thin_rows(x, start), kept, self._chances, first, block, found)
                found[:, 0] = whole
            return found

        total = np.zeros((2, len(cuts)), np.float64)
        stream.add_up(look, total)
        total[:, self._whole] = 0.0  # they keep their scale even where a sum is infinite
        return [float(a / b) if min(a, b) >= _SMALLEST_SUM else 1.0 for a, b in total.T]

    def _thin_rows(self, x: Numbers, start: int) -> NDArray[np.uint8]:
        """Put the differences that are thinned out row by row in the place of their inputs; which these are."""
        ready = np.zeros(len(self._ranks), np.uint8)
        for i, sparsifier in self._by_row:
            load(".merging.kernels.sums").subtract(x[i + 1 : i + 2].reshape(1, -1), x[0].reshape(-1))
            sparsifier.apply(x[i + 1], start)
            ready[i] = 1
        return ready

    def merge(self, x: Numbers, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        flat, first, count = x.reshape(len(x), -1), start * x.shape[2], len(self._ranks)
        cuts: list[list[Cut]] = [[] for _ in range(count)]
        scales = np.ones(count, np.float32)
        if statistic:
            cuts = [[Cut(*cut) for cut in row] for row in statistic["cuts"]]
            scales[:] = statistic["scales"]
        ready, kept = self._thin_rows(x, start), bounds(cuts, first, flat.shape[1])
        weights, factor = self._weights, self._factor
        load(".merging.kernels.sparse").combine(
            flat, ready, kept, self._chances, first, weights, scales, self._vote, self._normalize, factor, out.reshape(-1)
        )  # fmt: skip


def task_vector_method(
    name: str,
    title: str,
    source: str,
    *,
    sparsify: Callable[[Task, int], Sparsifier] | None,
    vote: bool,
    normalize: bool,
    rescale: bool,
    parameters: tuple[Parameter, ...] = (),
) -> Method:
    """A method of this family; ``normalize`` and ``rescale`` are the defaults of the parameters of these names."""

    def bind(task: Task) -> Operator:
        count = len(task.each)
        chosen = [sparsify(task, i) if sparsify else Sparsifier() for i in range(count)]
        return TaskVectors(task, chosen, vote)

    return Method(
        name=name,
        title=title,
        source=source,
        parameters=(
            Parameter("weight", required=True, scope="other"),
            Parameter("density", default=1.0, scope="other"),
            *parameters,
            Parameter("lambda", default=1.0),
            Parameter("normalize", "bool", normalize),
            Parameter("rescale", "bool", rescale),
            Parameter("int8_mask", "bool", False),  # changes how others store the vote, never the result
        ),
        bind=bind,
        least=0,
    )
