"""The run of a job that packs: several frames at a time, written one behind the other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import xxhash

from ..conversion.execution import carry_out, open_job
from ..conversion.options import Options
from ..engine import files
from ..engine import run as runs
from ..engine.budget import default_threads
from ..engine.changes import SourceDigests
from ..engine.finishing import finish, resting
from ..engine.index_file import CommitRecord
from ..engine.job import Job
from ..engine.plan import Chunk
from ..sources.mapped import MappedFile
from ..sources.pack_format import Facts, tail
from ..sources.zstd_frames import sizes_of
from ..threads import spread
from .frames import packed
from .packing import PackedFile, Packing

#: when a commit is due
_WINDOW_BYTES, _WINDOW_SECONDS = 64 << 20, 2.0
#: memory of a chunk while it is made, its frames packed; and of a thread: planes, and what zstd takes
_CHUNK_RAM, _THREAD_RAM = 48 << 20, 16 << 20


def execute_pack(
    packing: Packing, options: Options, reporter: runs.Reporter, stop: runs.StopRequest | None = None
) -> runs.Outcome | None:
    """Carry out the plan; None when its output is there already.

    Parameters
    ----------
    stop : when to end early, where more than this job ends then

    Raises
    ------
    Every error of the tree; what is finished is kept for the next run.
    """
    plan = packing.plan
    return carry_out(
        plan, options, reporter, lambda: open_job(plan, options, reporter),
        lambda job: Run(packing, job, options, reporter, stop).go(),
    )  # fmt: skip


class Run:
    """One run of such a job."""

    def __init__(
        self,
        packing: Packing,
        job: Job,
        options: Options,
        reporter: runs.Reporter,
        stop: runs.StopRequest | None = None,
    ) -> None:
        self._items, self._job, self._reporter = packing.items, job, reporter
        self._stop = stop or runs.StopRequest(options.stop_after_s)
        threads = default_threads() if options.threads is None else options.threads
        self._threads = max(1, min(threads, options.ram // _THREAD_RAM))
        self._at_once = max(1, min(self._threads, options.ram // _CHUNK_RAM))
        self._pending: list[CommitRecord] = []
        self._pending_bytes, self._due = 0, 0.0

    def go(self) -> runs.Outcome:
        """From what there is to the published folder."""
        job = self._job
        chunks = {item: list(own) for item, own in groupby(job.plan.chunks(), key=lambda c: c.item)}
        kept = {item: self._kept(own) for item, own in chunks.items()}
        done = sum(_content(c) for own in kept.values() for c in own)
        total = sum(item.file.size for item in self._items)
        outcome = runs.Outcome(total - done, done, notes=list(job.notes))
        self._reporter.start(total, done)
        try:
            with resting(job):
                with self._stop.on_signals():
                    for item, own in chunks.items():
                        if job.part_fds[item.number] >= 0 and len(kept[item]) < len(own):
                            _File(self, item, own, len(kept[item])).make()
                    self.commit()
                self._settle()
            finish(job)
        finally:
            self._reporter.finish()
        return outcome

    def _kept(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks of a file up to the first that is missing; those behind it are given up before they are overwritten."""
        done, at = self._job.done, len(self._job.plan.files[chunks[0].file].header)
        kept: list[Chunk] = []
        for chunk in chunks:
            if chunk.number not in done or done[chunk.number].offset != at:
                break
            kept.append(chunk)
            at += done[chunk.number].length
        lost = [c.number for c in chunks[len(kept) :] if c.number in done]
        if lost:
            self._job.journal.forget(lost)
            for number in lost:
                del done[number]
        return kept

    def _settle(self) -> None:
        """Give the plan the sizes that the files have got."""
        ends: dict[int, int] = {}
        for record in self._job.journal.commits():
            ends[record.file] = max(ends.get(record.file, 0), record.offset + record.length)
        plan = self._job.plan
        settled = [replace(f, size=ends[i], grows=False) if f.grows else f for i, f in enumerate(plan.files)]
        for i, f in enumerate(plan.files):  # a run before this one may have got further when it was killed
            if f.grows and self._job.part_fds[i] >= 0:
                files.allocate(self._job.part_fds[i], ends[i], plan.part_path(i))
        self._job.plan = replace(plan, files=settled)

    @property
    def at_once(self) -> int:
        """Chunks that are made at a time."""
        return self._at_once

    def each(self, work: Callable[[int], None], numbers: Sequence[int]) -> None:
        """Do ``work`` for all ``numbers``, by the threads of the job."""
        spread(work, numbers, self._threads)

    def look(self) -> None:
        """End here, with what is done committed, if a stop was asked for."""
        if self._stop.is_due():
            self.commit()
            raise self._stop.error(self._job)

    def made(self, record: CommitRecord, content: int, name: str) -> None:
        """A chunk was written; commit it, with others."""
        if not self._pending:
            self._due = time.monotonic() + _WINDOW_SECONDS
        self._pending.append(record)
        self._pending_bytes += record.length
        self._reporter.advance(content, name)
        if self._pending_bytes >= _WINDOW_BYTES or time.monotonic() >= self._due:
            self.commit()

    def commit(self) -> None:
        """Make durable what was written, then say so in the index."""
        if self._pending:
            self._job.commit(self._pending)
            self._pending, self._pending_bytes = [], 0

    @property
    def job(self) -> Job:
        """The job."""
        return self._job


class _File:
    """One file that is packed, from chunk number ``first`` of its own on."""

    def __init__(self, run: Run, item: PackedFile, chunks: Sequence[Chunk], first: int) -> None:
        self._run, self._item, self._chunks, self._first = run, item, chunks, first
        plan = run.job.plan
        self._fd, self._path = run.job.part_fds[item.number], plan.part_path(item.number)
        self._header = plan.files[item.number].header
        self._digests = SourceDigests()
        self._sha256 = hashlib.sha256()
        self._sizes: list[int] = []
        self._at = len(self._header)

    def make(self) -> None:
        """Make the chunks that are missing."""
        self._take_up()
        for n in range(self._first, len(self._chunks), self._run.at_once):
            self._run.look()
            self._batch(self._chunks[n : n + self._run.at_once])

    def _take_up(self) -> None:
        """What earlier runs knew of the chunks that they made: their frames' sizes, and the digest of the content."""
        if not self._first:
            return
        records = [self._run.job.done[c.number] for c in self._chunks[: self._first]]
        self._at = records[-1].offset + records[-1].length
        self._sizes = sizes_of(MappedFile(self._path, "pread"), len(self._header), self._at)
        for frame in self._item.frames[: self._chunks[self._first].start]:
            self._sha256.update(self._item.file.view(frame.start, frame.stop - frame.start).data)

    def _batch(self, chunks: Sequence[Chunk]) -> None:
        """Make some chunks: their frames side by side, and the digest of their content, which is in order, beside them."""
        item, first = self._item, chunks[0].start
        frames = item.frames[first : chunks[-1].stop]
        made = [b""] * len(frames)

        def work(number: int) -> None:
            if number < 0:
                for frame in frames:
                    self._sha256.update(item.file.view(frame.start, frame.stop - frame.start).data)
                return
            start, stop, is_planes = frames[number]
            made[number] = packed(item.file.view(start, stop - start), is_planes)

        item.prefetch(chunks[-1].stop, chunks[-1].stop + len(frames))
        self._run.each(work, [-1, *range(len(frames))])
        self._sizes += map(len, made)
        for chunk in chunks:
            data = b"".join(made[chunk.start - first : chunk.stop - first])
            self._write(chunk, data + self._tail() if chunk.stop == item.n_rows else data)

    def _tail(self) -> bytes:
        item = self._item
        planes = [
            (run[0] + 1, run[-1] + 2)
            for is_planes, group in groupby(range(len(item.frames)), key=lambda n: item.frames[n].is_planes)
            if is_planes and (run := list(group))
        ]
        facts = Facts(item.name, item.file.size, self._sha256.hexdigest(), item.found.data_start, item.sample, planes)
        return tail(self._header, facts, [(n, f.stop - f.start) for n, f in zip(self._sizes, item.frames, strict=True)])

    def _write(self, chunk: Chunk, data: bytes) -> None:
        source = self._digests.of(self._item, chunk.start, chunk.stop)
        files.pwrite_all(self._fd, data, self._at, self._path)
        record = CommitRecord(
            chunk.number, chunk.file, self._at, len(data), chunk.stop - chunk.start, xxhash.xxh3_128(data).digest(),
            source=source,
        )  # fmt: skip
        self._at += len(data)
        self._item.release(chunk.start, chunk.stop)
        self._run.made(record, _content(chunk), self._item.name)


def _content(chunk: Chunk) -> int:
    """Bytes of the plain file that a chunk holds."""
    return sum(span.length for span in chunk.item.spans(chunk.start, chunk.stop))
