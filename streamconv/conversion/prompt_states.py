"""What a model's layers are given for prompts: the rows of a mixture's gates, where its recipe wants them made so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import forward
from ..engine.budget import default_threads
from ..metadata import Metadata
from ..rows import Floats, Json, Rows, Span, packed, unpacked
from ..sources.checkpoint import Checkpoint
from ..workers import Workers
from .options import Options
from .runnable import as_runnable

#: tokens of the prompts that go through the model together, the shorter ones filled up; fixed, as last bits depend on it
_TOGETHER = 2048
#: token ids of each positive and of each negative prompt
Prompts = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Effort:
    """Memory in bytes and threads that the forward pass may take; values do not depend on them."""

    ram: int = field(default=1 << 30, compare=False)
    threads: int = field(default=1, compare=False)


class PromptStates(Rows):
    """Directions of prompts in every layer: float32[n_layers * n_experts, size], all experts of a layer one after the other.

    A row is the mean state before the layer over the positive prompts, minus that over the negative ones, of length 1.

    Parameters
    ----------
    rows, metadata : the model, as ``forward.open_model`` takes it
    experts : prompts of each
    average : of a prompt's state, the mean of all its tokens; else that of the last
    """

    looks_first = True
    dtype = "F32"

    def __init__(
        self, rows: dict[str, Rows], metadata: Metadata, experts: Sequence[Prompts], average: bool, effort: Effort
    ) -> None:
        self._model = forward.open_model(rows, metadata)
        self._experts = experts
        self._average = average
        self._effort = effort
        self.shape = (self._model.n_layers * len(experts), self._model.size)

    def measure(self, workers: Workers) -> Json:
        """All rows: the prompts go through every layer but the last."""
        sets = [prompts for pair in self._experts for prompts in pair]
        means = np.zeros((self._model.n_layers, len(sets), self._model.size))
        for group in _groups([(at, ids) for at, prompts in enumerate(sets) for ids in prompts]):
            for number, states in enumerate(self._states([ids for _, ids in group], workers)):
                for (at, _), state in zip(group, states, strict=True):
                    means[number, at] += state / len(sets[at])
        found = means[:, 0::2] - means[:, 1::2]
        found /= np.maximum(np.sqrt(np.sum(found * found, axis=2, keepdims=True)), 1e-8)
        return packed(found.astype(np.float32))

    def measured(self, value: Json) -> None:
        """See ``Rows.measured``."""
        self._fact = None if value is None else unpacked(value, np.float32).reshape(self.shape)

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self.fact[start:stop]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """None: what rows are made of is measured."""
        return iter(())

    def everything(self) -> Iterator[Span]:
        """The whole model."""
        for source in self.sources:
            yield from source.everything()

    def _states(self, prompts: Sequence[Sequence[int]], workers: Workers) -> Iterator[list[NDArray[np.float64]]]:
        """Before every layer, the state of each prompt."""
        model = self._model
        tokens = np.zeros((len(prompts), max(map(len, prompts))), np.int32)  # no token sees those that fill it up
        for row, ids in zip(tokens, prompts, strict=True):
            row[: len(ids)] = ids
        hidden = forward.embed(model, tokens)
        after = np.empty_like(hidden)
        for number in range(model.n_layers):
            workers.go_on()
            if number:
                forward.run_layer(
                    model, number - 1, tokens, hidden, after, ram=self._effort.ram, threads=self._effort.threads
                )
                hidden, after = after, hidden
            residual = hidden[:, :, model.columns.residual]
            yield [
                state[: len(ids)].mean(axis=0, dtype=np.float64) if self._average else state[len(ids) - 1].astype(float)
                for state, ids in zip(residual, prompts, strict=True)
            ]


def _groups(prompts: Sequence[tuple[int, Sequence[int]]]) -> Iterator[list[tuple[int, Sequence[int]]]]:
    """The prompts by length, as many at a time as go through the model together."""
    group: list[tuple[int, Sequence[int]]] = []
    for prompt in sorted(prompts, key=lambda each: len(each[1])):
        if group and len(prompt[1]) * (len(group) + 1) > _TOGETHER:
            yield group
            group = []
        group.append(prompt)
    yield group


def open_states(checkpoint: Checkpoint, experts: Sequence[Prompts], average: bool, options: Options) -> PromptStates:
    """The states of prompts in the model ``checkpoint``.

    Raises
    ------
    BadInput : something in the model cannot be computed here
    """
    model, _ = as_runnable(checkpoint, options, str(checkpoint.path), with_tokenizer=False)
    keys: dict[str, Any] = dict(model.metadata.items())
    decisive = {k: v for k, v in keys.items() if k == "general.architecture" or not k.startswith("general.")}
    effort = Effort(options.ram // 4, options.threads or default_threads())
    return PromptStates(dict(model.rows), Metadata(decisive), experts, average, effort)
