"""Gates of a mixture: for every expert a row that hidden states are multiplied with.

``cheap_embed`` points a row to the embeddings of the expert's prompts: the sum over all their tokens, normalised, minus the
same of the negative prompts, normalised again. It is the same in every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput, InputMissing
from ...rows import Described, Floats, Rows, Span
from ...sources.checkpoint import Checkpoint
from ..inputs import round_to
from . import prompts
from .recipe import Expert

Vector = NDArray[np.float64]
#: token ids of the positive and of the negative prompts
Ids = tuple[list[int], list[int]]


def expert_ids(where: str, base: Checkpoint, experts: Sequence[Expert], n_tokens: int) -> list[Ids]:
    """The tokens of all prompts of every expert.

    Raises
    ------
    InputMissing : the base has no tokenizer.json
    BadInput : it cannot be used
    """
    tokenizer = base.text("tokenizer.json")
    if tokenizer is None:
        raise InputMissing(
            f"{where}: {base.folder} has no tokenizer.json, which gate_mode cheap_embed splits its prompts with",
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
    rest = iter(found)
    return [
        ([i for _ in expert.positive for i in next(rest)], [i for _ in expert.negative for i in next(rest)])
        for expert in experts
    ]


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
