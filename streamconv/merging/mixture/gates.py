"""Gates of a mixture: for every expert a row that hidden states are multiplied with.

``cheap_embed`` points a row to the embeddings of the expert's prompts: the sum over all their tokens, normalised, minus the
same of the negative prompts, normalised again. It is the same in every layer. ``hidden`` points it to the mean state of the
prompts before the layer, minus that of the negative ones, normalised; who opens the recipe runs the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput, InputMissing
from ...rows import Described, Floats, Rows, Span
from ...sources.checkpoint import Checkpoint
from ..inputs import round_to
from ..opener import Prompts
from . import prompts
from .recipe import Expert, Mixture

Vector = NDArray[np.float64]
#: token ids of the positive and of the negative prompts, all in one
Ids = tuple[list[int], list[int]]


def expert_prompts(mixture: Mixture, base: Checkpoint, experts: Sequence[Expert], n_tokens: int) -> list[Prompts]:
    """The tokens of every prompt of every expert.

    Raises
    ------
    InputMissing : the base has no tokenizer.json
    BadInput : it cannot be used
    """
    where = mixture.where
    tokenizer = base.text("tokenizer.json")
    if tokenizer is None:
        raise InputMissing(
            f"{where}: {base.folder} has no tokenizer.json, which gate_mode {mixture.gate} splits its prompts with",
            "Save the tokenizer as tokenizer.json beside the base model, or use gate_mode: random.",
        )
    bos = (base.json("tokenizer_config.json") or {}).get("bos_token") or ""
    start = str(bos.get("content", "")) if isinstance(bos, dict) else str(bos)
    texts = [start + text for expert in experts for text in (*expert.positive, *expert.negative)]
    found = prompts.token_ids(tokenizer, texts)
    if isinstance(found, str):
        raise BadInput(f"{where}: {base.folder / 'tokenizer.json'} cannot split the prompts: {found}")
    largest = max((index for ids in found for index in ids), default=0)
    if largest >= n_tokens:
        raise BadInput(f"{where}: a prompt has token {largest}, the embedding of the base only {n_tokens} rows")
    empty = next((text for text, ids in zip(texts, found, strict=True) if not ids), None)
    if empty is not None and mixture.gate != "cheap_embed":
        raise BadInput(f"{where}: the prompt {empty!r} has no token in the vocabulary of the base", "Leave it out.")
    rest = iter(found)
    return [([next(rest) for _ in expert.positive], [next(rest) for _ in expert.negative]) for expert in experts]


def joined(prompts: Sequence[Prompts]) -> list[Ids]:
    """The tokens of all positive and of all negative prompts of every expert."""
    return [(list(chain(*positive)), list(chain(*negative))) for positive, negative in prompts]


class PromptGate(Described):
    """The rows of a gate by ``cheap_embed``.

    Parameters
    ----------
    embedding : float[n_tokens, hidden]
    ids : for every expert
    """

    def __init__(self, embedding: Rows, ids: Sequence[Ids]) -> None:
        self._embedding = embedding
        self._ids = ids

    @property
    def shape(self) -> tuple[int, int]:
        """Experts and hidden size."""
        return len(self._ids), self._embedding.shape[-1]

    def read(self, start: int, stop: int) -> Floats:
        """Rows ``start..stop``: float32[stop - start, hidden]."""
        found = np.empty((stop - start, self.shape[1]), np.float32)
        for row, (positive, negative) in zip(found, self._ids[start:stop], strict=True):
            direction = self._direction(positive)
            if negative:
                direction = _normalised(direction - self._direction(negative))
            row[:] = direction
        return found

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """What rows ``start..stop`` are made of: the embeddings of the tokens."""
        for index in sorted({i for pair in self._ids[start:stop] for ids in pair for i in ids}):
            yield from self._embedding.spans(index, index + 1)

    def _direction(self, ids: Sequence[int]) -> Vector:
        total = np.zeros(self.shape[1], np.float64)
        for index in ids:
            total += self._embedding.read(index, index + 1)[0]
        return _normalised(total)


class GateRows(Rows):
    """A gate as a tensor."""

    def __init__(self, gate: PromptGate, dtype: str) -> None:
        self.gate = gate
        self.shape = gate.shape
        self.dtype = dtype

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        rows = self.gate.read(start, stop)
        round_to(self.dtype, rows)
        out[...] = rows

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        yield from self.gate.spans(start, stop)


def _normalised(v: Vector) -> Vector:
    length = float(np.sqrt(np.sum(v * v)))
    return v / length if length > 0 else v
