"""How much the predictions suffer from what a type loses of each matrix: one pass over the layers, on a few chunks of text.

Every matrix of a block is quantized alone and the block run again: ``delta`` is the mean over tokens of
``|h' - h|^2 / |h|^2``, h the state after the block. What a change of the state costs in the end depends on where and by what kind
of matrix it was made, by a factor of three. So beside the states of the model those of others go through the layers, in each of
which the matrices of one kind in a third of the depth are quantized: what they diverge from the model is shared out by ``delta``.
Embeddings have a run of their own, and the head needs none: it is quantized over the last states.

    states of the model ──► block ──► block …            + one block for every matrix of it, quantized alone
    states of a group   ······► quantized blocks ─► …    from the first block of the group on
    states of embeddings ─► block ─► block …
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import forward
from ..conversion import Options
from ..engine import run as runs
from ..engine.budget import default_threads
from ..errors import BadInput, Interrupted, Stopped, StreamconvError
from ..evaluation.comparing import temporary_states
from ..evaluation.groups import block_of
from ..evaluation.heads import Head, divergences
from ..evaluation.states import States
from ..evaluation.walk import held_bytes, stored_bytes
from ..forward.chunks import Chunks
from ..rows import Floats, Rows
from .pool import Matrix
from .requantized import Requantized

#: parts of the depth, and kinds of matrices by their names (what else there is is one more), that are measured together
_PARTS, _KINDS = 3, tuple(map(re.compile, (r"\.attn_(q|k)", r"\.ffn_(gate|up)", r"\.ffn_down")))
_EMBEDDINGS = "token_embd.weight"


def with_rows(model: forward.Model, changed: Mapping[str, Rows]) -> forward.Model:
    """``model`` with other rows for some tensors."""
    return replace(model, rows={**model.rows, **changed}, _vectors={})


def quantized(matrix: Matrix, type_name: str, compat: bool) -> Rows:
    """``matrix`` as a type holds it."""
    return Requantized(matrix.rows, type_name, matrix.weights, compat)


@dataclass
class _Stream:
    """A model that goes beside: the first block that is quantized in it, and its states."""

    model: forward.Model
    first: int
    states: States
    started: bool = False


def _first(group: Sequence[str]) -> int:
    """The first block that has one of these matrices."""
    return min(block for name in group if (block := block_of(name)) is not None)


class Pass:
    """One pass.

    Parameters
    ----------
    matrices : those of ``model.rows`` that are to be measured
    kind : candidate that they are quantized to
    n_trial : the first chunks, on which each is quantized alone
    known : ``delta`` of matrices of whole blocks that an earlier run measured
    keep : called with all of ``delta`` after every block
    """

    def __init__(
        self,
        model: forward.Model,
        matrices: Sequence[Matrix],
        kind: str,
        chunks: Chunks,
        n_trial: int,
        options: Options,
        reporter: runs.Reporter,
        known: Mapping[str, float],
        keep: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._model, self._chunks, self._reporter = model, chunks, reporter
        self._ram = options.ram - held_bytes(model)
        self._n_trial = n_trial
        self._delta = dict(known)
        self._keep = keep
        self._threads = options.threads or default_threads()
        self._stop = runs.StopRequest(options.stop_after_s)
        self._rows = {
            m.name: quantized(m, m.types.get(kind, next(iter(m.types.values()))), options.compat) for m in matrices
        }
        self._by_block: dict[int, list[str]] = {}
        for matrix in matrices:
            block = block_of(matrix.name)
            if block is not None and block < model.n_layers:
                self._by_block.setdefault(block, []).append(matrix.name)
        self._bytes = [
            sum(stored_bytes(rows) for name, rows in model.rows.items() if block_of(name) == number)
            for number in range(model.n_layers)
        ]

    def run(self) -> dict[str, float]:
        """What each matrix costs in its type, in nats of KL divergence.

        Raises
        ------
        Stopped, Interrupted : that is asked for
        BadInput : the model gives NaN or Inf
        """
        model, shape = self._model, (*self._chunks.inputs.shape, self._model.width)
        groups = self._groups()
        n_states = 2 + len(groups) + (_EMBEDDINGS in self._rows)
        with self._stop.on_signals(), temporary_states([shape] * n_states) as (own, spare, *others):
            embedded = others.pop() if _EMBEDDINGS in self._rows else None
            streams = [
                _Stream(with_rows(model, {name: self._rows[name] for name in group}), _first(group), states)
                for group, states in zip(groups, others, strict=True)
            ]
            self._start(len(streams), embedded is not None)
            try:
                self._begin(model, own)
                if embedded is not None:
                    self._begin(with_rows(model, {_EMBEDDINGS: self._rows[_EMBEDDINGS]}), embedded)
                    streams.append(_Stream(model, 0, embedded, started=True))
                for number in range(model.n_layers):
                    self._block(number, own, spare, streams)
                return self._costs(own, streams, groups, embedded is not None)
            finally:
                self._reporter.finish()

    def _groups(self) -> list[list[str]]:
        """Names of matrices of blocks that are measured together."""
        found: dict[tuple[int, int], list[str]] = {}
        for block, names in sorted(self._by_block.items()):
            for name in names:
                kind = next((n for n, pattern in enumerate(_KINDS) if pattern.search(name)), len(_KINDS))
                found.setdefault((block * _PARTS // self._model.n_layers, kind), []).append(name)
        return [found[key] for key in sorted(found)]

    def _start(self, n_streams: int, embeds: bool) -> None:
        work = sum(
            n_bytes * (1 + embeds + n_streams + len(self._trials(number))) for number, n_bytes in enumerate(self._bytes)
        )
        self._reporter.start(work, 0)

    def _trials(self, number: int) -> list[str]:
        """Matrices of a block that are still to be measured."""
        return [name for name in self._by_block.get(number, ()) if name not in self._delta]

    def _begin(self, model: forward.Model, states: States) -> None:
        forward.embed(model, self._chunks.inputs, states.following)
        states.filled()

    def _block(self, number: int, own: States, spare: States, streams: Sequence[_Stream]) -> None:
        """One block: of the model, with each of its matrices quantized alone, and of what goes beside."""
        before, after = own.current, own.following
        self._layer(self._model, number, before, after)
        trials = self._trials(number)
        found = {}
        for name in trials:
            changed = with_rows(self._model, {name: self._rows[name]})
            self._layer(changed, number, before[: self._n_trial], spare.following[: self._n_trial])
            found[name] = self._change(after[: self._n_trial], spare.following[: self._n_trial])
        for stream in streams:
            if not stream.started and number < stream.first:
                self._reporter.advance(self._bytes[number], f"blk.{number}")
                continue
            start = stream.states.current if stream.started else before
            self._layer(stream.model, number, start, stream.states.following)
            stream.states.filled()
            stream.started = True
        own.filled()
        if found:
            self._delta |= found
            self._keep(self._delta)

    def _layer(self, model: forward.Model, number: int, before: Floats, after: Floats) -> None:
        def look(name: str, block: int, x: Floats, expert: int | None) -> None:
            if self._stop.signum:
                raise self._stopped()

        forward.run_layer(
            model,
            number,
            self._chunks.inputs[: len(before)],
            before,
            after,
            ram=self._ram,
            threads=self._threads,
            observe=look,
        )
        self._reporter.advance(self._bytes[number], f"blk.{number}")
        if self._stop.is_due():
            raise self._stopped()

    def _stopped(self) -> StreamconvError:
        hint = "Run the same command again: blocks that were measured are kept."
        if self._stop.signum:
            error = Interrupted(
                self._stop.signum, f"stopped by {signal.Signals(self._stop.signum).name} while measuring"
            )
            error.hint = hint
            return error
        return Stopped("stopped as requested while measuring", hint)

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

    def _costs(
        self, own: States, streams: Sequence[_Stream], groups: Sequence[Sequence[str]], embeds: bool
    ) -> dict[str, float]:
        """What each matrix costs, from the divergence of all that went beside."""
        model, delta, cost = self._model, self._delta, dict[str, float]()
        for group, stream in zip(groups, streams, strict=False):
            kld, total = self._divergence(own, Head(model, stream.states.current)), sum(delta[n] for n in group)
            cost |= {name: kld * delta[name] / total if total else 0.0 for name in group}
        head = with_rows(model, {model.head: self._rows[model.head]}) if model.head in self._rows else None
        if embeds:
            is_head = head is not None and model.head == _EMBEDDINGS  # one matrix: its errors in both places meet
            used = head if head is not None and is_head else model
            cost[_EMBEDDINGS] = self._divergence(own, Head(used, streams[-1].states.current))
        if head is not None and model.head not in cost:
            cost[model.head] = self._divergence(own, Head(head, own.current))
        return cost

    def _divergence(self, own: States, other: Head) -> float:
        """Mean KL divergence from the model."""
        base = Head(self._model, own.current)
        [found] = divergences(base, [other], self._chunks, self._ram, self._threads, self._look)
        kld = float(found.kld.mean())
        if not math.isfinite(kld):
            raise BadInput("the model gives NaN or Inf on the text", "Look for NaN and Inf in it: streamconv check.")
        return max(0.0, kld)

    def _look(self) -> None:
        if self._stop.signum:
            raise self._stopped()
