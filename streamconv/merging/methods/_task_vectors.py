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
from ._sparsify import Everything, Sparsifier, bounds

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
        self._sparsifiers = sparsifiers
        self._vote = vote
        self._normalize = bool(task.shared["normalize"])
        self._factor = np.float32(task.shared["lambda"])
        self._sparse = [i for i, sparsifier in enumerate(sparsifiers) if not isinstance(sparsifier, Everything)]
        self._rescales = bool(task.shared["rescale"])
        self._ranks = [sparsifier.ranks for sparsifier in sparsifiers]

    @property
    def needs_statistic(self) -> bool:
        """Whether thresholds or factors are wanted."""
        return any(self._ranks) or (self._rescales and bool(self._sparse))

    @property
    def takes_words(self) -> bool:
        """Where differences are never stored: those that chance thins out, and those that are added up, are."""
        return not self._rescales and all(self._ranks[i] for i in self._sparse)

    def measure(self, stream: Stream) -> Statistic:
        """``cuts``: for every input threshold and place of its ranks; ``scales``: its factor."""
        cuts: list[list[Cut]] = [[] for _ in self._sparsifiers]
        ranked = [i for i, ranks in enumerate(self._ranks) if ranks]
        if ranked:
            keys = Differences([i + 1 for i in ranked])
            for i, found in zip(ranked, select(stream, keys, [self._ranks[i] for i in ranked]), strict=True):
                cuts[i] = found
        scales = self._scales(stream, cuts) if self._rescales and self._sparse else [1.0] * len(cuts)
        return {"cuts": [[[cut.threshold, cut.ties] for cut in row] for row in cuts], "scales": scales}

    def _scales(self, stream: Stream, cuts: list[list[Cut]]) -> list[float]:
        """``Σ|d| / Σ|s|`` of every input; 1 where either is next to nothing."""

        def look(x: Floats, start: int) -> list[NDArray[np.float64]]:
            sums = load(".merging.kernels.sparse")
            found = np.zeros((2, len(cuts), 1), np.float64)
            load(".merging.kernels.sums").subtract(x[1:].reshape(len(cuts), -1), x[0].reshape(-1))
            for i in self._sparse:
                sums.absolute_sum(x[i + 1].reshape(-1), found[0, i])
                self._sparsifiers[i].apply(x[i + 1], start, cuts[i])
                sums.absolute_sum(x[i + 1].reshape(-1), found[1, i])
            return [found[:, :, 0]]

        total = np.zeros((2, len(cuts)), np.float64)
        stream.add_up(look, total)
        return [float(a / b) if min(a, b) >= _SMALLEST_SUM else 1.0 for a, b in total.T]

    def merge(self, x: Numbers, start: int, statistic: Statistic, out: Floats) -> None:
        """See ``Operator.merge``."""
        flat = x.reshape(len(x), -1)
        count = len(self._weights)
        cuts: list[list[Cut]] = [[] for _ in range(count)]
        ready, scales = np.zeros(count, np.uint8), np.ones(count, np.float32)
        if statistic:
            cuts = [[Cut(*cut) for cut in row] for row in statistic["cuts"]]
            scales[:] = statistic["scales"]
        for i in self._sparse:
            if not cuts[i]:
                load(".merging.kernels.sums").subtract(flat[i + 1 : i + 2], flat[0])
                self._sparsifiers[i].apply(x[i + 1], start, [])
                ready[i] = 1
        kept = bounds(cuts, start * x.shape[2], flat.shape[1])
        load(".merging.kernels.sparse").combine(
            flat, ready, kept, self._weights, scales, self._vote, self._normalize, self._factor, out.reshape(-1)
        )


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
        chosen = [sparsify(task, i) if sparsify else Everything() for i in range(count)]
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
