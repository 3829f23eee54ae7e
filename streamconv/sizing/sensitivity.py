"""How much the predictions suffer from what a type loses of each matrix: one pass over the layers, on a few chunks of text.

Every matrix of a block is quantized alone and the block run again: ``delta`` is the mean over tokens of
``|h' - h|^2 / |h|^2``, h the state after the block. What a change of the state costs in the end depends on what kind of matrix it
was made by. So beside the states of the model those of others go through the layers, in each of which the matrices of one kind are
quantized: what they diverge from the model is shared out by ``delta``. It also depends, less, on where the change was made: a
``thorough`` pass does the same for each third of the layers. Embeddings have a run of their own, and the head needs none: it is
quantized over the last states.

    states of the model ──► block ──► block …            + one block for every matrix of it, quantized alone
    states of a group   ······► quantized blocks ─► …    from the first block of the group on
    states of embeddings ─► block ─► block …
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from .. import forward
from ..conversion import Options
from ..errors import BadInput
from ..evaluation.groups import block_of
from ..evaluation.heads import Head, divergences
from ..evaluation.states import States, states_bytes
from ..forward.chunks import Chunks
from ..forward.divergence import Doubles
from ..forward.matmul import PIECE, panel_bytes
from ..forward.run import HEAD_ROWS
from ..rows import Floats, Rows
from .course import Course, Task, release
from .pool import Matrix
from .records import Step
from .requantized import Requantized

#: kinds of matrices by their names (what else there is is one more), and parts of the depth, that are measured together
_KINDS, _PARTS = tuple(map(re.compile, (r"\.attn_(q|k)", r"\.ffn_(gate|up)", r"\.ffn_down"))), 3
_EMBEDDINGS = "token_embd.weight"
_COSTS = "costs"


def with_rows(model: forward.Model, changed: Mapping[str, Rows]) -> forward.Model:
    """``model`` with other rows for some tensors."""
    return replace(model, rows={**model.rows, **changed}, _vectors={})


def quantized(matrix: Matrix, type_name: str, compat: bool) -> Rows:
    """``matrix`` as a type holds it."""
    return Requantized(matrix.rows, type_name, matrix.weights, compat)


class Pass:
    """One pass.

    Parameters
    ----------
    matrices : of the output; those of ``model.rows`` are measured
    reference : the type that they are quantized to
    chunks, n_trial : the text, and the first chunks of it on which each matrix is quantized alone
    thorough : measure each part of the depth by itself
    """

    def __init__(
        self,
        model: forward.Model,
        matrices: Sequence[Matrix],
        reference: str,
        chunks: Chunks,
        n_trial: int,
        thorough: bool,
        options: Options,
    ) -> None:
        self._model, self._chunks, self._n_trial = model, chunks, n_trial
        self._rows = {
            m.name: quantized(m, m.measured_with(reference), options.compat) for m in matrices if m.name in model.rows
        }
        self._names = list(self._rows)
        self._by_block: dict[int, list[str]] = {n: [] for n in range(model.n_layers)}
        for name in self._names:
            block = block_of(name)
            if block is not None and block < model.n_layers:
                self._by_block[block].append(name)
        self._groups = self._grouped(_PARTS if thorough else 1)
        self._embeds = _EMBEDDINGS in self._rows

    def _grouped(self, n_parts: int) -> list[list[str]]:
        """Names of matrices of blocks that are measured together."""
        found: dict[tuple[int, int], list[str]] = {}
        for block, names in self._by_block.items():
            for name in names:
                kind = next((n for n, pattern in enumerate(_KINDS) if pattern.search(name)), len(_KINDS))
                found.setdefault((block * n_parts // self._model.n_layers, kind), []).append(name)
        return [found[key] for key in sorted(found)]

    @property
    def steps(self) -> list[Step]:
        """What is committed: ``delta`` of every block, then what all matrices cost."""
        rows = self._model.rows
        blocks = [
            # what is in no block is looked at from the first on; a block may have no matrix to measure, but no step is empty
            Step(
                _block(n), len(names) + 1, [r for name, r in rows.items() if block_of(name) in (n, *[None] * (n == 0))]
            )
            for n, names in self._by_block.items()
        ]
        return [*blocks, Step(_COSTS, len(self._names) + 1)]

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """Of the states of all that goes beside each other."""
        n_chunks, n_ctx = self._chunks.inputs.shape
        return n_chunks * (1 + len(self._groups) + self._embeds), n_ctx, self._model.width

    @property
    def scratch_bytes(self) -> int:
        """Disk space of the states."""
        return states_bytes(self._shape)

    def run(self, course: Course) -> dict[str, float]:
        """What each matrix costs in its reference type, in nats of KL divergence; what was measured before is taken as it is.

        Raises
        ------
        Stopped, Interrupted : that is asked for
        BadInput : the model gives NaN or Inf
        """
        known = course.records.of(_COSTS)
        done = 0
        while done < self._model.n_layers and course.records.of(_block(done)) is not None:
            done += 1
        if known is None or done < self._model.n_layers:
            known = self._measured(course, done)
            course.records.commit(_COSTS, known)
            course.look_between()
        return {name: cost for name, cost in zip(self._names, known.tolist(), strict=False) if cost}

    def _measured(self, course: Course, done: int) -> Doubles:
        model = self._model
        course.reporter.message(f"measuring {len(self._names)} matrices on {self._chunks.inputs.size:,} tokens")
        states = States(course.records.state_paths, self._shape, course.records.fingerprint)
        streams = self._streams()
        try:
            at = max(0, states.restore(done))
            of_block = self._chunks.inputs.size * len(streams)
            trials = sum(map(len, self._by_block.values())) * self._n_trial * self._chunks.inputs.shape[1]
            course.reporter.start(model.n_layers * of_block + trials, at * of_block)
            if states.n_layers < 0:
                self._begin(states, streams)
            for number in range(at, model.n_layers):
                self._block(course, number, states, streams)
                release(model, number)
                course.look_between()
            return self._costs(course, states.current, streams)
        finally:
            course.reporter.finish()
            states.close()

    def _streams(self) -> list[tuple[forward.Model, int]]:
        """What goes beside each other, the model first: what runs, and the first block in which it is another than the model."""
        found = [(self._model, 0)]
        for group in self._groups:
            first = min(block for name in group if (block := block_of(name)) is not None)
            found.append((with_rows(self._model, {name: self._rows[name] for name in group}), first))
        return [*found, (self._model, 0)] if self._embeds else found

    def _of(self, states: Floats, number: int) -> Floats:
        """The states of one of ``_streams``."""
        n = len(self._chunks.inputs)
        return states[number * n : (number + 1) * n]

    def _begin(self, states: States, streams: Sequence[tuple[forward.Model, int]]) -> None:
        own = forward.embed(self._model, self._chunks.inputs, self._of(states.following, 0))
        for number in range(1, len(streams)):
            self._of(states.following, number)[...] = own
        if self._embeds:
            changed = with_rows(self._model, {_EMBEDDINGS: self._rows[_EMBEDDINGS]})
            forward.embed(changed, self._chunks.inputs, self._of(states.following, len(streams) - 1))
        states.filled()

    def _block(self, course: Course, number: int, states: States, streams: Sequence[tuple[forward.Model, int]]) -> None:
        """One block: of the model, of what goes beside, and with each of its matrices quantized alone."""
        tokens, n = self._chunks.inputs, self._n_trial
        before, after = (self._of(each, 0) for each in (states.current, states.following))
        course.layer(number, [Task(self._model, tokens, before, after)])
        tasks = []
        for k, (model, first) in enumerate(streams[1:], 1):
            if number < first:
                self._of(states.following, k)[...] = after
            else:
                tasks.append(Task(model, tokens, self._of(states.current, k), self._of(states.following, k)))
        found: dict[str, float] = {}
        is_known = course.records.of(_block(number)) is not None
        for name in () if is_known else self._by_block[number]:
            changed = with_rows(self._model, {name: self._rows[name]})

            def seen(other: Floats, name: str = name) -> None:
                found[name] = self._change(after[:n], other)

            tasks.append(Task(changed, tokens[:n], before[:n], None, seen))
        if tasks:
            course.layer(number, tasks)
        if not is_known:
            course.records.commit(_block(number), np.array([*(found[name] for name in self._by_block[number]), 0.0]))
        states.filled()

    def _change(self, after: Floats, other: Floats) -> float:
        """Mean over tokens of the relative squared change of the residual."""
        columns, total, n = self._model.columns.residual, 0.0, 0
        for mine, theirs in zip(after, other, strict=True):  # chunk by chunk
            h = mine[:, columns].astype(np.float64)
            moved = ((theirs[:, columns] - h) ** 2).sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.nan_to_num(moved / (h * h).sum(axis=1), posinf=0.0)
            total, n = total + float(shares.sum()), n + len(shares)
        return total / n

    def _costs(self, course: Course, states: Floats, streams: Sequence[tuple[forward.Model, int]]) -> Doubles:
        """What each matrix costs, from the divergence of all that went beside; 0 where that is not known."""
        model, delta = self._model, self._deltas(course)
        heads = [Head(stream, self._of(states, k)) for k, (stream, _) in enumerate(streams)]
        own = heads[0]
        others = heads[1:]
        head = with_rows(model, {model.head: self._rows[model.head]}) if model.head in self._rows else None
        is_shared = head is not None and self._embeds and model.head == _EMBEDDINGS
        if head is not None and is_shared:  # one matrix: its errors in both places meet
            others[-1] = Head(head, others[-1].states)
        elif head is not None:
            others.append(Head(head, own.states))
        klds = self._divergences(course, own, others)
        cost: dict[str, float] = {}
        for group, kld in zip(self._groups, klds, strict=False):
            total = sum(delta[name] for name in group)
            cost |= {name: kld * delta[name] / total if total else 0.0 for name in group}
        ends = [_EMBEDDINGS] * self._embeds + [model.head] * (head is not None and not is_shared)
        cost |= dict(zip(ends, klds[len(self._groups) :], strict=True))
        return np.array([*(cost.get(name, 0.0) for name in self._names), 0.0])

    def _deltas(self, course: Course) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, names in self._by_block.items():
            values = course.records.of(_block(number))
            assert values is not None
            found |= dict(zip(names, values.tolist(), strict=False))
        return found

    def _divergences(self, course: Course, own: Head, others: Sequence[Head]) -> list[float]:
        """Mean KL divergence of each of ``others`` from the model."""
        model = self._model
        need = panel_bytes(model.size) + PIECE * (12 * model.width + 20 * HEAD_ROWS)  # of one of them
        at_once = max(1, course.options.ram // need - 1)
        klds: list[float] = []
        for at in range(0, len(others), at_once):
            each = divergences(
                own, others[at : at + at_once], self._chunks, course.options.ram, course.threads, course.look
            )
            klds += [float(found.kld.mean()) for found in each]
        if not all(map(math.isfinite, klds)):
            raise BadInput("the model gives NaN or Inf on the text", "Look for NaN and Inf in it: streamconv check.")
        return [max(0.0, kld) for kld in klds]


def _block(number: int) -> str:
    """Name of the step of a block."""
    return f"block {number}"
