"""The mix and the best standard one against the model, on text that was held out: in parts, until it is clear which is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .. import forward
from ..engine.plan import fingerprint
from ..evaluation.heads import Head, divergences
from ..evaluation.states import States, states_bytes
from ..forward.chunks import Chunks
from ..forward.divergence import Doubles, mean
from ..rows import Floats
from .course import Course, Task, release
from .pool import Matrix
from .records import Step
from .sensitivity import quantized, with_rows

#: a difference by so many standard deviations needs no more text
_CLEAR = 4
#: mixes that are compared
_N = 2

Types = Mapping[str, str]


class Compared(NamedTuple):
    """KL divergence of each mix at the positions of ``n_tokens`` tokens: float64[n_mixes, n]."""

    klds: Doubles
    n_tokens: int


class Comparison:
    """The comparison of mixes of ``matrices``; ``parts`` of the text, of which later ones may not be needed."""

    def __init__(self, model: forward.Model, matrices: Sequence[Matrix], parts: Sequence[Chunks]) -> None:
        self._model, self._matrices, self._parts = model, matrices, parts

    @property
    def steps(self) -> list[Step]:
        """What is committed: a part after the other."""
        return [Step(_part(k), _N * part.targets.size) for k, part in enumerate(self._parts)]

    @property
    def scratch_bytes(self) -> int:
        """Disk space of the states."""
        n, n_ctx = max(part.inputs.shape for part in self._parts)
        return states_bytes(((_N + 1) * n, n_ctx, self._model.width))

    def run(self, course: Course, mixes: Sequence[Types]) -> Compared:
        """Compare one or two ``mixes``; what was measured before is taken as it is.

        Raises
        ------
        Stopped, Interrupted : that is asked for
        """
        found: list[Doubles] = []
        n_tokens = 0
        for k, part in enumerate(self._parts):
            values = course.records.of(_part(k))
            if values is None:
                values = np.zeros((_N, part.targets.size))
                values[: len(mixes)] = self._measured(course, k, mixes)
                course.records.commit(_part(k), values.reshape(-1))
                course.look_between()
            found.append(values.reshape(_N, -1)[: len(mixes)])
            n_tokens += part.inputs.size
            klds = np.concatenate(found, axis=1)
            difference = mean(klds[0] - klds[-1])
            if len(mixes) == 1 or abs(difference.value) > _CLEAR * difference.uncertainty > 0:
                break
        return Compared(klds, n_tokens)

    def _measured(self, course: Course, k: int, mixes: Sequence[Types]) -> Doubles:
        """All through the layers, on one part of the text: float64[n_mixes, n]."""
        part, base = self._parts[k], self._model
        course.reporter.message(f"comparing on {part.inputs.size:,} {'more' if k else 'other'} tokens")
        compat = course.options.compat
        models = [base]
        for types in mixes:
            changed = {m.name: quantized(m, types[m.name], compat) for m in self._matrices if m.name in base.rows}
            models.append(with_rows(base, changed))
        n, n_ctx = part.inputs.shape
        own = fingerprint([course.records.fingerprint.hex(), k, [dict(types) for types in mixes]])
        states = States(course.records.state_paths, (len(models) * n, n_ctx, base.width), own)
        try:
            at = max(0, states.restore(base.n_layers))
            course.reporter.start(base.n_layers * states.current[..., 0].size, at * states.current[..., 0].size)
            if states.n_layers < 0:
                for number, model in enumerate(models):
                    forward.embed(model, part.inputs, states.following[number * n : (number + 1) * n])
                states.filled()
            for number in range(at, base.n_layers):
                course.layer(number, self._tasks(models, part, states.current, states.following))
                states.filled()
                release(base, number)
                course.made_step()
                course.look_between()
            heads = [Head(model, states.current[m * n : (m + 1) * n]) for m, model in enumerate(models)]
            found = divergences(heads[0], heads[1:], part, course.options.ram, course.threads, course.look)
            return np.array([each.kld for each in found])
        finally:
            course.reporter.finish()
            states.close()

    def _tasks(self, models: Sequence[forward.Model], part: Chunks, before: Floats, after: Floats) -> list[Task]:
        """Mixes are quantized while they are read, so each is one task; the model is two, for threads that are left."""
        n = len(part.inputs)

        def task(number: int, start: int, stop: int) -> Task:
            at = slice(number * n + start, number * n + stop)
            return Task(models[number], part.inputs[start:stop], before[at], after[at])

        half = n // 2
        own = [task(0, 0, half), task(0, half, n)] if half else [task(0, 0, n)]
        return [*(task(number, 0, n) for number in range(1, len(models))), *own]


def _part(k: int) -> str:
    """Name of the step of a part."""
    return f"comparison {k}"
