"""What the heads of models say at the positions that count, a few rows of the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

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


class Head(NamedTuple):
    """A model, and the states of all tokens after its last layer: float32[n_chunks, n_ctx, width]."""

    model: forward.Model
    states: Floats


def observe_head(model: forward.Model, states: Floats, observe: Callable[[str, Floats], None]) -> None:
    """Tell the head's name and its input for ``states``, float32[n, width]."""
    with one_thread_of_blas():
        next(forward.head_panels(model, states, observe))


class Table:
    """What heads say, one row a position that counts.

    Parameters
    ----------
    n_positions, n_heads : of the reference and of what is compared with it

    Attributes
    ----------
    values : float64[n_positions, 3 n_heads - 2]: ln p of the right token by the reference; and of each other model ln p, KL
        divergence from the reference, and whether both have the same most probable token
    missing : pieces of ``PIECE`` positions that are to be made, in order
    most_pieces : so many at once, at most, of one thread; None: any
    has_new : whether something was made since it was opened
    """

    most_pieces: int | None = None
    has_new = False

    def __init__(self, n_positions: int, n_heads: int) -> None:
        self.values: Doubles = np.zeros((n_positions, 3 * n_heads - 2))
        self.missing: Sequence[int] = range(-(-n_positions // PIECE))

    def add(self, part: slice, values: Doubles) -> None:
        """Take in the rows of some pieces; called from several threads."""
        self.values[part] = values
        self.has_new = True

    def log_p(self) -> Doubles:
        """float64[n_positions] ln p by the reference."""
        return np.ascontiguousarray(self.values[:, 0])

    def divergences(self) -> list[Divergence]:
        """Of each other model."""
        base, columns = self.log_p(), np.ascontiguousarray(self.values.T)
        return [Divergence(base, columns[n], columns[n + 1], columns[n + 2] != 0) for n in range(1, len(columns), 3)]


def log_probabilities(head: Head, chunks: Chunks, ram: int, threads: int, look: Callable[[], None]) -> Doubles:
    """ln p of the right tokens: float64[n_chunks, n_scored]; ``look`` raises to stop."""
    table = Table(chunks.targets.size, 1)
    fill(table, [head], chunks, ram, threads, look)
    return table.log_p().reshape(chunks.targets.shape)


def divergences(
    reference: Head, others: Sequence[Head], chunks: Chunks, ram: int, threads: int, look: Callable[[], None]
) -> list[Divergence]:
    """Each of ``others`` compared with the ``reference``, at all positions that count, in their order."""
    table = Table(chunks.targets.size, 1 + len(others))
    fill(table, [reference, *others], chunks, ram, threads, look)
    return table.divergences()


def fill(table: Table, heads: Sequence[Head], chunks: Chunks, ram: int, threads: int, look: Callable[[], None]) -> None:
    """Make what is missing in ``table``, on several threads; the first of ``heads`` is the reference."""
    fixed = sum(panel_bytes(head.model.size) for head in heads)
    a_piece = PIECE * sum(12 * head.model.width + 4 * 5 * HEAD_ROWS for head in heads)
    n = len(table.missing)
    threads = max(1, min(threads, n, ram // (fixed + a_piece)))
    at_once = max(1, min((ram // threads - fixed) // a_piece, -(-n // threads), table.most_pieces or n))
    parts = list(_parts(table.missing, at_once, chunks.targets.size))

    def work(number: int) -> None:
        part = parts[number]
        targets, panels = chunks.targets.reshape(-1)[part], _panels(heads, chunks, part, look)
        table.add(part, _alone(panels, targets) if len(heads) == 1 else _side_by_side(panels, len(heads) - 1, targets))

    with one_thread_of_blas():
        spread(work, range(len(parts)), threads)


def _parts(pieces: Sequence[int], at_once: int, n: int) -> Iterator[slice]:
    """The positions, of ``n``, of ``pieces``, which are in order: of at most so many that follow each other."""
    first = 0
    for at in range(1, len(pieces) + 1):
        if at == len(pieces) or at - first == at_once or pieces[at] != pieces[at - 1] + 1:
            yield slice(pieces[first] * PIECE, min((pieces[at - 1] + 1) * PIECE, n))
            first = at


def _alone(panels: Iterable[tuple[slice, Sequence[Floats]]], targets: NDArray[np.int32]) -> Doubles:
    scores = Scores(targets)
    for rows, (logits,) in panels:
        scores.add(rows, logits)
    return scores.log_p[:, None]


def _side_by_side(
    panels: Iterable[tuple[slice, Sequence[Floats]]], n_others: int, targets: NDArray[np.int32]
) -> Doubles:
    found = diverge(panels, n_others, targets)
    return np.stack([found[0].base, *(column for each in found for column in each[1:])], axis=1)


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
