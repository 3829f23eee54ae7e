"""What the heads of models say at the positions that count, a few rows of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import forward
from ..forward.chunks import Chunks
from ..forward.divergence import Divergence, Doubles, Scores, diverge
from ..forward.matmul import PIECE, panel_bytes
from ..forward.run import HEAD_ROWS
from ..limits import one_thread_of_blas
from ..rows import Floats
from ..threads import spread

T = TypeVar("T")


class Head(NamedTuple):
    """A model, and the states of all tokens after its last layer: float32[n_chunks, n_ctx, width]."""

    model: forward.Model
    states: Floats


def observe_head(model: forward.Model, states: Floats, observe: Callable[[str, Floats], None]) -> None:
    """Tell the head's name and its input for ``states``, float32[n, width]."""
    with one_thread_of_blas():
        next(forward.head_panels(model, states, observe))


def log_probabilities(head: Head, chunks: Chunks, ram: int, threads: int, look: Callable[[], None]) -> Doubles:
    """ln p of the right tokens: float64[n_chunks, n_scored]; ``look`` raises to stop."""

    def score(part: slice) -> Doubles:
        scores = Scores(chunks.targets.reshape(-1)[part])
        for rows, logits in forward.head_panels(head.model, _at(head, chunks, part)):
            look()
            scores.add(rows, logits)
        return scores.log_p

    parts = _spread(score, [head], chunks.targets.size, ram, threads)
    return np.concatenate(parts).reshape(chunks.targets.shape)


def divergences(
    reference: Head, others: Sequence[Head], chunks: Chunks, ram: int, threads: int, look: Callable[[], None]
) -> list[Divergence]:
    """Each of ``others`` compared with the ``reference``, at all positions that count, in their order."""
    heads = [reference, *others]

    def compare(part: slice) -> list[Divergence]:
        return diverge(_panels(heads, chunks, part, look), len(others), chunks.targets.reshape(-1)[part])

    parts = _spread(compare, heads, chunks.targets.size, ram, threads)
    return [Divergence.of([found[n] for found in parts]) for n in range(len(others))]


def _panels(
    heads: Sequence[Head], chunks: Chunks, part: slice, look: Callable[[], None]
) -> Iterator[tuple[slice, list[Floats]]]:
    streams = [forward.head_panels(head.model, _at(head, chunks, part)) for head in heads]
    for panels in zip(*streams, strict=True):
        look()
        yield panels[0][0], [logits for _, logits in panels]


def _at(head: Head, chunks: Chunks, part: slice) -> Floats:
    """The states at some of the positions that count: float32[n, width]."""
    numbers: NDArray[np.intp] = np.arange(part.start, part.stop)
    n_scored = chunks.targets.shape[1]
    found: Floats = head.states[numbers // n_scored, chunks.first_scored + numbers % n_scored]
    return found


def _spread(work: Callable[[slice], T], heads: Sequence[Head], n: int, ram: int, threads: int) -> list[T]:
    """``work`` for all ``n`` positions, in parts of whole pieces, on several threads; in their order."""
    fixed = sum(panel_bytes(head.model.size) for head in heads)
    a_piece = PIECE * sum(12 * head.model.width + 4 * 5 * HEAD_ROWS for head in heads)
    n_pieces = -(-n // PIECE)
    threads = max(1, min(threads, n_pieces, ram // (fixed + a_piece)))
    at_once = max(1, min((ram // threads - fixed) // a_piece, -(-n_pieces // threads)))
    step = at_once * PIECE
    parts = [slice(at, min(at + step, n)) for at in range(0, n, step)]
    found: dict[int, T] = {}

    def one(number: int) -> None:
        found[number] = work(parts[number])

    with one_thread_of_blas():
        spread(one, range(len(parts)), threads)
    return [found[number] for number in range(len(parts))]
