"""The last steps of a job, the same for all kinds: what ends it early leaves a job that can go on, else it is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Locked, StreamconvError, WriteFailed
from .job import Job


def rest_after(job: Job, error: BaseException) -> None:
    """Record that the job stopped cleanly, unless ``error`` says that a write failed or that the job is another's."""
    if not isinstance(error, (WriteFailed, Locked)):
        job.rest()


@contextmanager
def resting(job: Job) -> Iterator[None]:
    """Let the job rest when an error of the tree ends what is done here; see ``rest_after``."""
    try:
        yield
    except StreamconvError as e:
        rest_after(job, e)
        raise


def confirm(job: Job, has_doubt: bool = False) -> None:
    """Make sure that everything was made from the inputs as they are now, and that the job is still ours.

    Parameters
    ----------
    has_doubt : whether something happened to an input, as far as others than the plan know

    Raises
    ------
    InputChanged, Locked : and the job rests
    """
    with resting(job):
        if job.plan.verify_inputs() or has_doubt:  # something happened to an input: its contents decide
            job.check_contents()
        job.confirm()


def finish(job: Job, has_doubt: bool = False) -> None:
    """Publish the output of a job all of whose chunks are committed.

    Raises
    ------
    InputChanged, Locked, WriteFailed, CannotCreate : see ``confirm`` and ``Job.publish``
    """
    confirm(job, has_doubt)
    job.publish()  # says itself how far it got, so no rest here
