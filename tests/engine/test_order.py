"""The order of writes, barriers, commits and names, checked call by call: what a power cut at any of them would leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
from toy_jobs import Toy, folder_plan, go, make_plan, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.index_file import CLEAN, CommitRecord
from streamconv.engine.journal import Journal
from streamconv.engine.plan import Plan
from streamconv.errors import Locked, StreamconvError
from streamconv.progress import Silent


class Watch:
    """What no barrier has confirmed yet, and which rules were broken."""

    def __init__(self, plan: Plan, patch: pytest.MonkeyPatch) -> None:
        self.dirty: dict[Path, set[tuple[int, int]]] = {}
        self.unsynced_folders: set[Path] = set()
        self.broken: list[str] = []
        self.committed = 0
        self._plan, self._patch = plan, patch
        self._after(files, "pwrite_all", self._write)
        self._after(files, "sync_data", lambda fd, path: self.dirty.pop(path, None))
        self._before(Journal, "commit", self._commit)
        self._after(Journal, "commit", lambda journal, commits: self._settled("after a commit", journal.path))
        self._before(Journal, "mark", lambda journal, state: self._settled("before a change of state", *self.dirty))
        self._before(files, "publish", self._rename)
        self._after(files, "publish", lambda part, final: self._folder("after a rename", final.parent))
        self._patch.setattr(os, "rename", self._renaming(os.rename))
        self._after(files, "sync_dir", self.unsynced_folders.discard)

    def _after(self, where: Any, name: str, see: Callable[..., object]) -> None:
        real = getattr(where, name)

        def call(*args: Any) -> Any:
            result = real(*args)
            see(*args)
            return result

        self._patch.setattr(where, name, call)

    def _before(self, where: Any, name: str, see: Callable[..., object]) -> None:
        real = getattr(where, name)

        def call(*args: Any) -> Any:
            see(*args)
            return real(*args)

        self._patch.setattr(where, name, call)

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(part: Path, final: Path) -> None:
            real(part, final)
            self.unsynced_folders.add(final.parent)

        return rename

    def _write(self, fd: int, data: Any, offset: int, path: Path) -> None:
        if path.name != "lock":  # only says who holds it
            self.dirty.setdefault(path, set()).add((offset, offset + memoryview(data).nbytes))

    def _commit(self, _journal: Journal, commits: list[CommitRecord]) -> None:
        for s in commits:
            self.committed += 1
            path = self._plan.part_path(s.file)
            if any(a < s.offset + s.length and s.offset < b for a, b in self.dirty.get(path, ())):
                self.broken.append(f"chunk {s.chunk} is committed before its bytes in {path.name} are durable")

    def _settled(self, when: str, *paths: Path) -> None:
        self.broken += [f"{when}: {p.name} has writes that nothing confirmed" for p in paths if self.dirty.get(p)]

    def _rename(self, part: Path, final: Path) -> None:
        self._settled(f"before {final.name} gets its name", *(p for p in self.dirty if p == part or part in p.parents))

    def _folder(self, when: str, folder: Path) -> None:
        if folder in self.unsynced_folders:
            self.broken.append(f"{when}: the names in {folder.name} are not durable")


@pytest.mark.parametrize("kind", ["one file", "parts in several files", "a folder"])
def test_nothing_is_vouched_for_or_named_before_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    parted = [Toy("a", 40, 64, 33, 100), Toy("b", 7, 128), Toy("c", 33, 20, 50)]
    plan = {
        "one file": lambda: make_plan(tmp_path, toys()),
        "parts in several files": lambda: make_plan(tmp_path, parted, n_files=3),
        "a folder": lambda: folder_plan(tmp_path),
    }[kind]()
    monkeypatch.setattr(run, "_COMMIT_SECONDS", 0.001)
    watch = Watch(plan, monkeypatch)
    go(plan, threads=1)
    assert watch.committed == len(plan.chunks())
    assert watch.broken == []


def _half_done(plan: Plan, state: int | None) -> None:
    """A job with one committed chunk, made by a run after an orderly stop and itself stopped in order (CLEAN) or not."""
    opened = job.Job.open(plan)
    opened.journal.mark(CLEAN)
    opened.close()
    opened = job.Job.open(plan)
    chunk, data = plan.chunks()[0], b"x" * plan.chunks()[0].length
    files.pwrite_all(opened.part_fds[chunk.file], data, chunk.offset, plan.part_path(chunk.file))
    digest = xxhash.xxh3_128_digest(data)
    opened.journal.commit([CommitRecord(0, chunk.file, chunk.offset, chunk.length, chunk.stop - chunk.start, digest)])
    if state is not None:
        opened.journal.mark(state)
    opened.close()


@pytest.mark.parametrize(("verify", "state", "is_found"), [
    ("all", CLEAN, True), ("all", None, True), ("recent", None, True), ("recent", CLEAN, False), ("none", None, False),
])  # fmt: skip
def test_what_is_read_back_depends_on_how_the_run_before_ended(
    tmp_path: Path, verify: str, state: int | None, is_found: bool
) -> None:
    plan = make_plan(tmp_path, toys())
    _half_done(plan, state)
    part = bytearray(plan.part_path(0).read_bytes())
    part[plan.chunks()[0].offset] ^= 1
    plan.part_path(0).write_bytes(part)
    opened = job.Job.open(plan, verify=verify)
    assert (opened.done == {}) == is_found
    opened.close()


def test_chunks_are_read_back_from_the_disk_and_not_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync, cached pages may show what the disk does not hold."""
    plan = make_plan(tmp_path, toys())
    _half_done(plan, None)
    calls: list[tuple[str, str]] = []
    for name in ("drop_cache", "pread_exactly"):
        real = getattr(files, name)

        def call(fd: int, *args: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            calls.append((name, Path(os.readlink(f"/proc/self/fd/{fd}")).suffix))
            return real(fd, *args)

        monkeypatch.setattr(files, name, call)
    job.Job.open(plan).close()
    for ending in (".wal", ".part"):
        assert next(call for call in calls if call[1] == ending) == ("drop_cache", ending)
    at = calls.index(("drop_cache", ".part"))
    assert [name for name, _ in calls[at : at + 3]] == ["drop_cache", "pread_exactly", "drop_cache"]


def test_a_run_that_lost_the_job_after_its_last_stamp_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tmp_path, toys())
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "publish", lambda self: (_ for _ in ()).throw(StreamconvError("killed")))
        with pytest.raises(StreamconvError, match="killed"):
            go(plan)
    opened = job.Job.open(plan)
    other = Journal.open(plan.job_dir / "index.wal")
    assert other is not None
    other.take_over()
    with pytest.raises(Locked, match="has taken over"):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    opened.close()
    other.close()
    assert not plan.output.exists()
