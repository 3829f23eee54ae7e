"""Chunks as tasks: so many that follow each other that a call to a worker is worth its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.plan import Chunk, Item

#: seconds of work in a task, about; a lost worker costs so much
SECONDS = 2.0
#: and bytes that it makes at most
_MOST_BYTES = 256 << 20
#: what is only copied takes its time, too
_BYTES_PER_S = 1e9
#: tasks there are at least for every thread, where there is so much to do: the last ones end at about the same time
_A_THREAD = 4


@dataclass(eq=False)
class Task:
    """Bundles of chunks that one call makes.

    Attributes
    ----------
    item : whose whole tensors are to be measured first; None: nothing is
    tries : calls that came to nothing
    """

    bundles: list[list[Chunk]]
    item: Item | None = None
    tries: int = 0

    @property
    def numbers(self) -> list[int]:
        """Its chunks."""
        return [c.number for bundle in self.bundles for c in bundle]


def cut(pending: Sequence[list[Chunk]], ns_per_weight: Callable[[Any], float], n_threads: int) -> list[Task]:
    """``pending`` bundles as tasks, in their order; chunks of an item that is measured first are in tasks of their own."""
    costs = [
        1e-9 * ns_per_weight(b[0].item) * (b[0].stop - b[0].start) * b[0].item.n_cols
        + sum(c.length for c in b) / _BYTES_PER_S
        for b in pending
    ]
    most = min(SECONDS, sum(costs) / (n_threads * _A_THREAD))
    return list(_cut(pending, costs, most))


def _cut(pending: Sequence[list[Chunk]], costs: Sequence[float], most: float) -> Iterator[Task]:
    task, cost, n_bytes = Task([]), 0.0, 0
    for bundle, seconds in zip(pending, costs, strict=True):
        item = bundle[0].item
        own = item if item.looks or item.whole else None
        length = sum(c.length for c in bundle)
        full = cost + seconds > most or n_bytes + length > _MOST_BYTES
        if task.bundles and (full or _number(own) != _number(task.item)):
            yield task
            task, cost, n_bytes = Task([]), 0.0, 0
        task.item = own
        task.bundles.append(bundle)
        cost, n_bytes = cost + seconds, n_bytes + length
    if task.bundles:
        yield task


def _number(item: Item | None) -> int | None:
    return None if item is None else item.number
