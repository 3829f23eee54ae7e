"""What a mix measures, as a job of the engine: numbers of every matrix, layer and comparison, committed as soon as they are known.

The job's folder lies beside the list and is gone when the list is there. Its part file is never published: it has a range for the
numbers of each step. Hidden states lie beside it, and say themselves how far they are (``evaluation.states``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from ..conversion import Options
from ..conversion.layout import identities
from ..engine import files, finishing, plan
from ..engine.changes import SourceDigests
from ..engine.index_file import CommitRecord
from ..engine.job import Job, leftover, preflight
from ..evaluation.groups import Group
from ..forward.divergence import Doubles
from ..rows import Rows
from ..sources.checkpoint import Checkpoint

#: where the first range begins
_START = 64


class Step(NamedTuple):
    """Numbers that are committed together.

    Attributes
    ----------
    name : of the step
    n : how many they are
    rows : tensors that they depend on, beside those of the steps before
    follows : whether they depend on all steps before, and count only as long as these do
    """

    name: str
    n: int
    rows: Sequence[Rows] = ()
    follows: bool = True


class Measuring(NamedTuple):
    """A job to be: the list it is for, 32 bytes that tell it from others, its steps, and bytes of states beside them."""

    path: Path
    fingerprint: bytes
    checkpoint: Checkpoint
    source: str
    steps: Sequence[Step]
    scratch_bytes: int


class Records:
    """The open job.

    Attributes
    ----------
    made : steps that this run has committed
    notes : what was unusual about what an earlier run has left
    """

    def __init__(self, job: Job, steps: Sequence[Step]) -> None:
        self._job, self._steps = job, steps
        self._chunks = {chunk.item.name: chunk for chunk in job.plan.chunks()}
        self._commits = threading.Lock()
        self.made, self.notes = 0, job.notes

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that tell the job from others."""
        return self._job.plan.fingerprint

    @property
    def state_paths(self) -> list[Path]:
        """Files for hidden states, of one stage after the other."""
        return [self._job.plan.job_dir / f"data-{n}.part" for n in (2, 3)]

    def of(self, name: str) -> Doubles | None:
        """The numbers of a step; None where it is still to be made."""
        chunk = self._chunks[name]
        needed = range(chunk.number + 1) if self._steps[chunk.number].follows else [chunk.number]
        if not all(number in self._job.done for number in needed):
            return None
        data = files.pread_exactly(self._job.part_fds[0], chunk.length, chunk.offset, self._job.plan.part_path(0))
        return np.frombuffer(data, "<f8").astype(np.float64)

    def commit(self, name: str, values: Doubles) -> None:
        """Keep the numbers of a step; from any thread."""
        chunk, job = self._chunks[name], self._job
        data = np.asarray(values, "<f8").tobytes()
        if len(data) != chunk.length:
            raise AssertionError(f"{name}: {len(data)} bytes instead of {chunk.length}")
        source = SourceDigests().of(chunk.item, 0, 1)  # of what a step before is made of, nothing is read again
        record = CommitRecord(
            chunk.number, 0, chunk.offset, chunk.length, 1, xxhash.xxh3_128(data).digest(), source=source
        )
        with self._commits:
            files.pwrite_all(job.part_fds[0], data, chunk.offset, job.plan.part_path(0))
            job.commit([record])
            job.done[chunk.number] = record
            self.made += 1

    def confirm(self) -> None:
        """Raise unless the job is ours still and its inputs are those that everything was measured on."""
        finishing.confirm(self._job)

    def discard(self) -> None:
        """The list is there: nothing of this is needed any more."""
        self._job.discard()


def _planned(measuring: Measuring) -> plan.Plan:
    """The job for the engine."""
    groups, at = [], _START
    for number, step in enumerate(measuring.steps):
        groups.append(Group(number, step.name, None, (), at, 8 * step.n, step.rows))
        at += 8 * step.n
    return plan.Plan(
        output=measuring.path,
        files=[plan.OutputFile(measuring.path, b"measured for a list of types".ljust(_START, b"\0"), at)],
        placements=[plan.Placement(group, 0, 0, group.offset) for group in groups],
        fingerprint=measuring.fingerprint,
        inputs=identities(measuring.checkpoint.inputs),
        verify_inputs=measuring.checkpoint.verify_unchanged,
        description={"source": measuring.source, "type": "mix", "output size": at},
        scratch_bytes=measuring.scratch_bytes,
    )


@contextmanager
def opened(measuring: Measuring, options: Options) -> Iterator[Records]:
    """The job, new or as an earlier run has left it; it stays where an error ends it.

    Raises
    ------
    Locked, PlanDiffers, InputChanged : see ``engine.job.Job.open``
    WriteFailed : the disk is too small
    """
    planned = _planned(measuring)
    preflight(planned)
    job = Job.open(planned, force=options.force, update=options.update, verify=options.verify)
    try:
        with finishing.resting(job):
            yield Records(job, measuring.steps)
    finally:
        job.close()


def forget(measuring: Measuring) -> None:
    """Remove the job of a list that was finished just before the process ended."""
    leftover(_planned(measuring))
