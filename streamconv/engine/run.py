"""The run: makers make chunks, one committer makes them durable and commits them.

Data flow of one chunk

    maker       item.fill → buffer → pwrite → digest        (a few MiB at a time, so memory does not grow with the chunk;
                chunks of the same rows, which go to different files, are filled together; see ``making``, ``makers``)
    committer   gather a window → data barrier → still ours? inputs unchanged? → commit slots → index barrier

A chunk counts only once its slot is committed; until then a kill costs that chunk again and nothing else.

The main thread watches the others. One that died, for whatever reason and at whatever line, ends the run with an error; one
that does not end although the run is over is left behind, with the files that it uses open and locked until the process ends.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

from ..errors import CannotCreate, Interrupted, NoResources, Stopped, WriteFailed, exhausted
from ..rows import Quality
from ..threads import Latch, Monitor, Thread
from .budget import Budget
from .finishing import finish, rest_after
from .index_file import CommitRecord
from .job import Job
from .makers import Makers, Threads
from .plan import Chunk, Plan, bundles
from .reading_back import damaged

_COMMIT_SECONDS = 2.0
#: between two looks at threads that may have died without a word
_LOOK_SECONDS = 0.5
#: how long threads may take to end once the run has failed or a signal came; longer than any step that is not stuck
_PATIENCE_SECONDS = 60.0
#: how often chunks are made again that are not what was handed in
_ROUNDS = 3


class Reporter(Protocol):
    """Receives events of the run. Called from several threads; must not block."""

    def message(self, text: str) -> None:
        """Something a user should know."""

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """Work begins; ``done_bytes`` are finished from earlier runs."""

    def advance(self, n_bytes: int, name: str) -> None:
        """``n_bytes`` more of item ``name`` are made."""

    def finish(self) -> None:
        """No more calls follow."""


class Supply(Protocol):
    """Provides the inputs while they are being read. Called from several threads."""

    def place(self, chunk: Chunk) -> tuple[int, int]:
        """Where the inputs of ``chunk`` begin: chunks are made in the order in which inputs arrive."""

    def committed(self, chunks: Sequence[Chunk]) -> None:
        """These chunks are durable; their inputs are not needed for them any more."""

    def wait_verified(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the inputs to be complete and checked; whether they are. Raises what is wrong."""

    def close(self) -> None:
        """Provide no more; readers that wait for an input get Stopped."""


@dataclass
class Outcome:
    """What a finished run has to tell.

    Attributes
    ----------
    made_bytes : bytes made by this run
    resumed_bytes : bytes that earlier runs had finished
    copied_bytes, copied_from : bytes that this run had from older outputs, and from which
    quality : per item name and part, for the whole job
    notes : what was unusual
    """

    made_bytes: int = 0
    resumed_bytes: int = 0
    copied_bytes: int = 0
    copied_from: Sequence[Path] = ()
    quality: dict[tuple[str, int], Quality] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class StopRequest:
    """Why and when the run should stop early: a signal or a deadline."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        #: set at the first look after it became due, see ``is_due``
        self.event = Latch()
        self.signum = 0
        self._deadline = None if stop_after_s is None else time.monotonic() + stop_after_s

    def is_due(self) -> bool:
        """Whether the run should stop: it was requested, or the deadline is over."""
        if self.signum or (self._deadline is not None and time.monotonic() >= self._deadline):
            self.event.set()
        return self.event.is_set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP ask for a stop; a second one kills at once. Main thread only, else a no-op.

        What the caller ignores stays ignored, as under nohup.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(signum: int, _frame: FrameType | None) -> None:
            self.signum = signum
            for s in caught:
                signal.signal(s, signal.SIG_DFL)

        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        caught = [s for s in wanted if signal.getsignal(s) is not signal.SIG_IGN]
        before = {s: signal.signal(s, handler) for s in caught}
        try:
            yield
        finally:
            for s, old in before.items():
                signal.signal(s, old)

    def error(self, job: Job) -> Stopped | Interrupted:
        """The error that tells why the run stopped."""
        where = f"{job.plan.output} is unfinished; what is done is kept in {job.plan.job_dir}"
        if self.signum:
            return Interrupted(self.signum, f"stopped by {signal.Signals(self.signum).name}: {where}")
        return Stopped(f"stopped as requested: {where}", "Run the same command again to resume.")


class _Run:
    """State shared by the threads of one run: the desk of its ``makers``, a committer, and who watches over them."""

    def __init__(
        self, job: Job, budget: Budget, reporter: Reporter, stop: StopRequest, supply: Supply | None, makers: Makers
    ) -> None:
        self.job, self.budget, self.reporter, self.stop, self.request = job, budget, reporter, stop.event, stop
        self._supply, self._makers = supply, makers
        self._chunks = job.plan.chunks()
        self.pending = bundles(c for c in self._chunks if c.number not in job.done)
        if supply is not None:
            self.pending.sort(key=lambda bundle: supply.place(bundle[0]))
        self._has_made = False
        self._changed = Monitor()
        self._finished: list[CommitRecord] = []
        self._finished_bytes = 0
        self._workers = [Thread(partial(self.work, body), self._notify) for body in makers.bodies(self)]
        self._committer = Thread(self.commit, self._notify)
        self._is_committing = False
        self._asked_at: float | None = None
        self.error: BaseException | None = None
        self.commits: list[CommitRecord] = []

    def fail(self, error: BaseException) -> None:
        """Remember the first error, or that a write failed, and stop all workers."""
        with self._changed:
            if self.error is None or (isinstance(error, WriteFailed) and not isinstance(self.error, WriteFailed)):
                self.error = error  # a failed write decides what may still be committed, whatever came before it
            self.stop.set()
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _is_over(self) -> bool:
        return self.error is not None or self.request.signum != 0

    def is_stopped(self) -> bool:
        """See ``makers.Desk``."""
        return self.stop.is_set()

    def is_wanted(self) -> bool:
        """See ``makers.Desk``."""
        # A deadline ends it only in a run that has made something, or short runs would never get past a long one.
        return not self._is_over() and not (self._has_made and self.request.is_due())

    def wait_for_room(self) -> bool:
        """See ``makers.Desk``."""
        with self._changed:
            # Do not run away from the disk: what a kill costs stays within two windows.
            while self._finished_bytes > 2 * self.budget.window_bytes and not self.stop.is_set():
                self._changed.wait(0.5)
            return not self.stop.is_set()

    def hand_in(self, commits: Sequence[CommitRecord], name: str) -> None:
        """See ``makers.Desk``."""
        n_bytes = sum(s.length for s in commits)
        with self._changed:
            self._finished += commits
            self._finished_bytes += n_bytes
            self._has_made = True
            if self._finished_bytes >= self.budget.window_bytes:
                self._changed.notify_all()
        self.reporter.advance(n_bytes, name)
        self.request.is_due()  # the deadline is looked at here: however short, every run makes progress

    def work(self, body: Callable[[], None]) -> None:
        """Body of a thread of the makers."""
        try:
            body()
        except BaseException as e:
            self.fail(e)

    def commit(self) -> None:
        """Body of the committer thread: runs until the workers are gone and everything finished is durable."""
        try:
            while True:
                with self._changed:
                    due = time.monotonic() + _COMMIT_SECONDS
                    while self._is_working() and self._finished_bytes < self.budget.window_bytes:
                        left = due - time.monotonic()
                        if left <= 0 and self._finished:
                            break
                        self._changed.wait(min(max(left, 0.05), _LOOK_SECONDS))
                    over = not self._is_working()
                    group, self._finished, self._finished_bytes = self._finished, [], 0
                    self._changed.notify_all()
                if isinstance(self.error, WriteFailed):
                    return  # never commit after a failed write
                if group:
                    self._is_committing = True
                    self._commit(group)
                    self._is_committing = False
                if over:
                    return
        except BaseException as e:
            self.fail(e)

    def _is_working(self) -> bool:
        return any(t.is_alive() for t in self._workers)

    def _commit(self, group: list[CommitRecord]) -> None:
        self.job.commit(group, is_durable=self._makers.is_durable)
        self.commits += group
        if self._supply is not None:
            self._supply.committed([self._chunks[s.chunk] for s in group])

    def go(self) -> bool:
        """Run all threads to the end; whether every one is gone. Those that are not may still use the files of the job."""
        threads = [*self._workers, self._committer]
        try:
            self._start(threads)
        except BaseException as e:  # those that run use files that would be closed under them, so no leaving yet
            self._give_up(e)
        while True:
            try:
                alive = [t for t in threads if t.is_alive()]
                if not alive:
                    break
                alive[-1].join(0.05)  # the committer, which outlives the others; signals are handled between
                self._look_after(threads)
                if self._is_stuck():
                    return False
            except BaseException as e:  # no memory even for that
                self._give_up(e)
        self._note_deaths(threads)
        return True

    def _is_stuck(self) -> bool:
        """Whether threads have been asked to end for so long that they never will."""
        if not self._is_over() or (self._is_committing and self._committer.is_alive()):
            self._asked_at = None
            return False
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        return time.monotonic() >= self._asked_at + _PATIENCE_SECONDS

    def _start(self, threads: Sequence[Thread]) -> None:
        for n, t in enumerate(threads):
            try:
                t.start()
            except NoResources as e:
                what = f"the system allows only {n} of {len(threads)} threads: {e.message}"
                raise NoResources(what, e.hint) from None

    def _look_after(self, threads: Sequence[Thread]) -> None:
        """See to what none of the threads can see to."""
        self._note_deaths(threads)
        if self._is_over():  # a thread that failed may not have set it
            self.stop.set()
        # Workers that wait for an input look at no deadline, but what is fetched meanwhile is progress too.
        if self._supply is not None and self.request.is_due():
            self._supply.close()

    def _note_deaths(self, threads: Sequence[Thread]) -> None:
        for t in threads:
            if self.error is None and t.failure is not None:
                self._give_up(t.failure)

    def _give_up(self, error: BaseException) -> None:
        """``fail`` of the main thread, which takes neither memory nor a lock that a thread may have died with."""
        self.error = self.error or error
        self.stop.set()


def run(
    job: Job,
    budget: Budget,
    reporter: Reporter,
    stop: StopRequest,
    supply: Supply | None = None,
    makers: Makers | None = None,
) -> Outcome:
    """Make every pending chunk of ``job``, then publish the output.

    Parameters
    ----------
    supply : downloads the inputs, if they are not all here
    makers : makes the chunks; None: threads of this process, as many as ``budget`` has

    Raises
    ------
    Stopped, Interrupted : asked to stop; the job can be resumed
    Locked : another process took the job over
    BadInput, InputChanged, WriteFailed, … : whatever a worker met; finished chunks are kept
    """
    plan = job.plan
    outcome = Outcome(resumed_bytes=sum(s.length for s in job.done.values()), notes=list(job.notes))
    reporter.start(plan.total_bytes, outcome.resumed_bytes)
    earlier = len(job.done)
    try:
        with stop.on_signals():
            for left in reversed(range(_ROUNDS)):
                made = _made(_Run(job, budget, reporter, stop, supply, makers or Threads(budget)))
                if makers is None or not makers.is_durable or not _refused(job, made, reporter, left, stop):
                    break
            while supply is not None:
                if stop.is_due():
                    job.rest()
                    raise stop.error(job)
                if supply.wait_verified(0.2):
                    break
        finish(job, makers is not None and makers.has_doubt)
        outcome.made_bytes = plan.total_bytes - outcome.resumed_bytes
        # The headers, and what aligns the tensors.
        new = list(job.done.values())[earlier:]
        reporter.advance(outcome.made_bytes - sum(s.length for s in new), plan.output.name)
    finally:
        reporter.finish()
    outcome.quality = collect_quality(plan, [*job.done.values()])
    return outcome


def _made(state: _Run) -> list[CommitRecord]:
    """What ``state`` committed once all of it is made; it joins what is done. Raises what the run ended with."""
    job, stop = state.job, state.request
    if not state.go():
        job.abandon()
        raise _told(state.error) if state.error is not None else stop.error(job)
    if state.error is not None and not isinstance(state.error, Stopped):
        rest_after(job, state.error)
        raise _told(state.error)
    if len(state.commits) < sum(map(len, state.pending)):
        job.rest()
        raise stop.error(job)
    job.done.update((s.chunk, s) for s in state.commits)
    return state.commits


def _refused(job: Job, made: Sequence[CommitRecord], reporter: Reporter, left: int, stop: StopRequest) -> bool:
    """Whether some of what others ``made`` is not what they said it is, so that it is to be made again.

    Raises
    ------
    Interrupted : a signal came; what is to be read is read by the next run
    Locked : another run has taken the job over
    WriteFailed : and it was so before, and no attempt is ``left``
    """

    def go_on() -> None:
        if stop.signum:
            raise stop.error(job)

    try:
        wrong = damaged(job.plan, made, go_on)
    except (WriteFailed, CannotCreate):
        job.confirm()  # files that are gone, or others, may be another run's doing
        raise
    if not wrong:
        return False
    job.confirm()
    chunks = job.plan.chunks()
    names = ", ".join(sorted({chunks[s.chunk].item.name for s in wrong})[:3])
    told = f"{len(wrong)} chunks are not in the file as they were made ({names})"
    if not left:
        raise WriteFailed(
            f"{job.plan.job_dir}: {told}, after {_ROUNDS} attempts",
            "Check the file system that the workers share, and the memory of their machines; then run the same command again.",
        )
    job.journal.forget(s.chunk for s in wrong)
    for s in wrong:
        del job.done[s.chunk]
        reporter.advance(-s.length, chunks[s.chunk].item.name)
    reporter.message(f"note: {told}; they are made again")
    return True


def _told(error: BaseException) -> BaseException:
    """What to tell of ``error``."""
    return exhausted(error) or error


def collect_quality(plan: Plan, commits: list[CommitRecord]) -> dict[tuple[str, int], Quality]:
    """Per item name and part, the quality summed over its chunks."""
    chunks = plan.chunks()
    found: dict[tuple[str, int], Quality] = {}
    for s in commits:
        key = chunks[s.chunk].item.name, chunks[s.chunk].part
        found.setdefault(key, Quality()).add(Quality(s.nonfinite, s.sum_squared_error, s.max_error))
    return found
