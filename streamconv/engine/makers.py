"""Who makes the chunks of a run: threads of this process, or whatever else hands in what the index is to say of them.

    run        takes in what was made, commits it, decides when all is over          (``Desk``)
    makers     make chunks, in any order, as often as they like, and hand them in     (``Makers``)

Making and committing meet in ``Desk.hand_in`` only, so who makes a chunk decides nothing about when it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from . import files
from .budget import Budget
from .changes import SourceDigests
from .index_file import CommitRecord
from .job import Job
from .making import Maker
from .measuring import Measuring
from .plan import Chunk


class Desk(Protocol):
    """What makers know of the run that they work for. Called from their threads."""

    @property
    def job(self) -> Job:
        """The open job."""

    @property
    def pending(self) -> Sequence[list[Chunk]]:
        """The chunks that are to be made, those of the same rows together, in the order in which they are best made."""

    def is_stopped(self) -> bool:
        """Whether no more chunks are wanted."""

    def is_wanted(self) -> bool:
        """Whether a look at a whole tensor is waited for."""

    def wait_for_room(self) -> bool:
        """Wait until what was handed in is not too far ahead of what is committed; False where no more is wanted."""

    def hand_in(self, commits: Sequence[CommitRecord], name: str) -> None:
        """These chunks of item ``name`` are made."""


class Makers(Protocol):
    """Makes the chunks of a run.

    Attributes
    ----------
    is_durable : whether bytes are durable when their chunk is handed in; they are read back before the output gets its name
    has_doubt : whether something happened to an input, as far as they know; see ``Plan.verify_inputs``
    """

    is_durable: bool
    has_doubt: bool

    def bodies(self, desk: Desk) -> Sequence[Callable[[], None]]:
        """What each thread does that makes chunks: it returns when there are no more or ``desk`` is stopped. What it raises
        ends the run.
        """


class Threads:
    """Threads of this process, which write to the part files as the job has them open."""

    is_durable = has_doubt = False

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def bodies(self, desk: Desk) -> Sequence[Callable[[], None]]:
        """See ``Makers``."""
        worker = _Worker(desk, self._budget)
        return [worker.work] * min(self._budget.threads, max(1, len(desk.pending)))


class _Worker:
    """What the threads of one run share."""

    def __init__(self, desk: Desk, budget: Budget) -> None:
        self._desk, self._budget = desk, budget
        self._sources = SourceDigests(desk.is_wanted)
        self._turns = Measuring(desk.pending, desk.is_wanted)

    def _take(self) -> tuple[list[Chunk], Chunk | None] | None:
        """The next chunks to make and one of those that will be taken after those being made."""
        return self._turns.take(self._budget.threads - 1) if self._desk.wait_for_room() else None

    def _put(self, file: int, data: memoryview, offset: int) -> None:
        job = self._desk.job
        files.pwrite_all(job.part_fds[file], data, offset, job.plan.part_path(file))

    def work(self) -> None:
        """Body of a thread."""
        desk = self._desk
        maker = Maker(self._budget, self._put, self._sources, lambda: not desk.is_stopped())
        while (taken := self._take()) is not None:
            bundle, ahead = taken
            if ahead is not None:
                ahead.item.prefetch(ahead.start, ahead.stop)
            commits = maker.make(bundle)
            if commits is None:
                return
            bundle[0].item.release(bundle[0].start, bundle[0].stop)
            self._turns.made(bundle)
            desk.hand_in(commits, bundle[0].item.name)
