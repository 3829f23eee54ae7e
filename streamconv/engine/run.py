"""The run: worker threads make chunks, one committer makes them durable and stamps them.

Data flow of one chunk

    worker      item.fill → buffer → pwrite → digest        (a few MiB at a time, so memory does not grow with the chunk)
    committer   gather a window → data barrier → still ours? inputs unchanged? → stamp slots → index barrier

A chunk counts only once its slot is stamped; until then a kill costs that chunk again and nothing else.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import numpy as np
import xxhash

from ..errors import Interrupted, Locked, Stopped, WriteFailed
from ..rows import Bytes, Floats, Quality
from . import files
from .budget import Budget
from .job import Job
from .journal import CLEAN, Stamp
from .plan import Chunk, Plan

_COMMIT_SECONDS = 2.0


class Reporter(Protocol):
    """Whoever is told how the run goes. Called from several threads; must not block."""

    def message(self, text: str) -> None:
        """Something a user should know."""

    def start(self, total_bytes: int, done_bytes: int) -> None:
        """Work begins; ``done_bytes`` are finished from earlier runs."""

    def advance(self, n_bytes: int, name: str) -> None:
        """``n_bytes`` more of item ``name`` are made."""

    def finish(self) -> None:
        """No more calls follow."""


@dataclass
class Outcome:
    """What a finished run has to tell.

    Attributes
    ----------
    made_bytes : bytes made by this run
    resumed_bytes : bytes that earlier runs had finished
    quality : per item name, for the whole job
    notes : what was unusual
    """

    made_bytes: int = 0
    resumed_bytes: int = 0
    quality: dict[str, Quality] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class StopRequest:
    """Why and when the run should stop early: a signal or a deadline."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        self.event = threading.Event()
        self.signum = 0
        self._deadline = None if stop_after_s is None else time.monotonic() + stop_after_s

    def wait(self, seconds: float) -> bool:
        """Sleep until asked to stop, the deadline, or for ``seconds``; True when the run should stop."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self.event.set()
            seconds = min(seconds, left)
        return self.event.is_set() or self.event.wait(max(seconds, 0))

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP ask for a stop; a second one kills at once. Main thread only, else a no-op."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handler(signum: int, _frame: FrameType | None) -> None:
            self.signum = signum
            self.event.set()
            for s in caught:
                signal.signal(s, signal.SIG_DFL)

        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        return Stopped(f"stopped as asked: {where}", "Run the same command again to go on.")


class _Run:
    """State shared by the threads of one run."""

    def __init__(self, job: Job, budget: Budget, reporter: Reporter, stop: threading.Event) -> None:
        self.job, self.budget, self.reporter, self.stop = job, budget, reporter, stop
        self.pending = [c for c in job.plan.chunks() if c.number not in job.done]
        self._next = 0
        self._changed = threading.Condition()
        self._finished: list[Stamp] = []
        self._finished_bytes = 0
        self._working = 0
        self.error: BaseException | None = None
        self.stamps: list[Stamp] = []

    def fail(self, error: BaseException) -> None:
        """Remember the first error and stop everybody."""
        with self._changed:
            self.error = self.error or error
            self.stop.set()
            self._changed.notify_all()

    def _take(self) -> tuple[Chunk, Chunk | None] | None:
        """The next chunk to make and the one that will be taken after those being made."""
        with self._changed:
            # Do not run away from the disk: what a kill costs stays within two windows.
            while self._finished_bytes > 2 * self.budget.window_bytes and not self.stop.is_set():
                self._changed.wait(0.5)
            if self.stop.is_set() or self._next == len(self.pending):
                return None
            chunk = self.pending[self._next]
            self._next += 1
            ahead = self._next + self.budget.threads - 1
            return chunk, self.pending[ahead] if ahead < len(self.pending) else None

    def work(self) -> None:
        """Body of a worker thread."""
        buffer = np.empty(self.budget.buffer_bytes, np.uint8)
        scratch = np.empty(self.budget.scratch_floats, np.float32)
        try:
            while (taken := self._take()) is not None:
                chunk, ahead = taken
                if ahead is not None:
                    ahead.item.prefetch(ahead.start, ahead.stop)
                stamp = self._make(chunk, buffer, scratch)
                if stamp is None:
                    return
                chunk.item.release(chunk.start, chunk.stop)
                with self._changed:
                    self._finished.append(stamp)
                    self._finished_bytes += stamp.length
                    if self._finished_bytes >= self.budget.window_bytes:
                        self._changed.notify_all()
                self.reporter.advance(stamp.length, chunk.item.name)
        except BaseException as e:
            self.fail(e)
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _make(self, chunk: Chunk, buffer: Bytes, scratch: Floats) -> Stamp | None:
        """Make ``chunk`` in the part file; None when asked to stop before it was complete."""
        item, fd, path = chunk.item, self.job.part_fds[chunk.file], self.job.part_path(chunk.file)
        step = max(1, min(len(buffer) // item.row_bytes, chunk.stop - chunk.start))
        digest, quality, at = xxhash.xxh3_128(), Quality(), chunk.offset
        for start in range(chunk.start, chunk.stop, step):
            if self.stop.is_set():
                return None
            stop = min(start + step, chunk.stop)
            out = buffer[: (stop - start) * item.row_bytes].reshape(stop - start, item.row_bytes)
            quality.add(item.fill(start, stop, out, scratch))
            data = out.reshape(-1).data
            files.pwrite_all(fd, data, at, path)
            digest.update(data)
            at += len(data)
        return Stamp(
            chunk.number, chunk.file, chunk.offset, chunk.length, chunk.stop - chunk.start, digest.digest(),
            quality.sum_squared_error, quality.max_error, min(quality.nonfinite, 0xFFFFFFFF),
        )  # fmt: skip

    def commit(self) -> None:
        """Body of the committer thread: runs until the workers are gone and everything finished is durable."""
        try:
            while True:
                with self._changed:
                    due = time.monotonic() + _COMMIT_SECONDS
                    while self._working and self._finished_bytes < self.budget.window_bytes:
                        left = due - time.monotonic()
                        if left <= 0 and self._finished:
                            break
                        self._changed.wait(max(left, 0.05))
                    group, self._finished, self._finished_bytes = self._finished, [], 0
                    over = not self._working
                    self._changed.notify_all()
                if isinstance(self.error, WriteFailed):
                    return  # never commit after a failed write
                if group:
                    self._commit(group)
                if over:
                    return
        except BaseException as e:
            self.fail(e)

    def _commit(self, group: list[Stamp]) -> None:
        job = self.job
        for index in sorted({s.file for s in group}):
            files.sync_data(job.part_fds[index], job.part_path(index))
        job.plan.verify_inputs()
        if not job.journal.still_ours():
            raise Locked(f"another process has taken over {job.plan.job_dir}", "Let that one finish.")
        job.journal.stamp(group)
        for s in group:
            files.drop_cache(job.part_fds[s.file], s.offset, s.length)
        self.stamps += group

    def go(self, stop: StopRequest) -> None:
        """Run all threads to the end; returns when every one is gone."""
        threads = [
            threading.Thread(target=self.work, name=f"worker-{i}", daemon=True)
            for i in range(min(self.budget.threads, max(1, len(self.pending))))
        ]
        self._working = len(threads)
        committer = threading.Thread(target=self.commit, name="committer", daemon=True)
        stop.wait(0)  # after a deadline that is past already, nothing begins
        for t in [*threads, committer]:
            t.start()
        while committer.is_alive():  # it outlives the workers
            committer.join(0.05)
            stop.wait(0)
        for t in threads:
            t.join()


def run(job: Job, budget: Budget, reporter: Reporter, stop: StopRequest) -> Outcome:
    """Make every pending chunk of ``job``, then publish the output.

    Raises
    ------
    Stopped, Interrupted : asked to stop; the job can be resumed
    Locked : another process took the job over
    BadInput, InputChanged, WriteFailed, … : whatever a worker met; finished chunks are kept
    """
    plan = job.plan
    outcome = Outcome(resumed_bytes=sum(s.length for s in job.done.values()), notes=list(job.notes))
    reporter.start(sum(f.size - len(f.header) for f in plan.files), outcome.resumed_bytes)
    state = _Run(job, budget, reporter, stop.event)
    try:
        with stop.on_signals():
            state.go(stop)
            if state.error is not None:
                if not isinstance(state.error, (WriteFailed, Locked)):
                    job.journal.mark(CLEAN)
                raise state.error
            if len(state.stamps) < len(state.pending):
                job.journal.mark(CLEAN)
                raise stop.error(job)
        plan.verify_inputs()
        if not job.journal.still_ours():
            raise Locked(f"another process has taken over {plan.job_dir}", "Let that one finish.")
        job.publish()
    finally:
        reporter.finish()
    outcome.made_bytes = sum(s.length for s in state.stamps)
    outcome.quality = collect_quality(plan, [*job.done.values(), *state.stamps])
    return outcome


def collect_quality(plan: Plan, stamps: list[Stamp]) -> dict[str, Quality]:
    """Per item name, the quality summed over its chunks."""
    chunks = plan.chunks()
    found: dict[str, Quality] = {}
    for s in stamps:
        found.setdefault(chunks[s.chunk].item.name, Quality()).add(
            Quality(s.nonfinite, s.sum_squared_error, s.max_error)
        )
    return found
