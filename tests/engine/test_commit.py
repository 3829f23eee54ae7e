"""What a slot of the index vouches for: bytes behind a barrier, and all of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import xxhash
from toy_jobs import interrupted, make_plan, parted, toys

from streamconv.engine import files, job, run, verify
from streamconv.engine.budget import Budget
from streamconv.engine.index_file import CommitRecord, read_progress
from streamconv.engine.journal import Journal
from streamconv.engine.plan import Plan
from streamconv.errors import Locked, Stopped
from streamconv.progress import Silent

#: bytes a worker makes before it writes them: chunks of 256 bytes go in pieces, the last one shorter
PIECE = 192


def go(plan: Plan, piece: int = PIECE) -> run.Outcome:
    opened = job.Job.open(plan)
    try:
        return run.run(opened, Budget(1 << 24, 2, piece, 128, 1 << 20), Silent(), run.StopRequest())
    finally:
        opened.close()


def test_a_slot_is_written_only_when_all_its_bytes_lie_behind_a_barrier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: set[int] = set()
    durable: set[int] = set()
    committed: list[int] = []
    lock = threading.Lock()
    real_write, real_sync, real_stamp = files.pwrite_all, files.sync_data, Journal.commit

    def write(fd: int, data: Any, offset: int, path: Path) -> None:
        real_write(fd, data, offset, path)
        if path.suffix == ".part":
            with lock:
                written.update(range(offset, offset + len(data)))

    def sync(fd: int, path: Path) -> None:
        with lock:
            before = set(written)  # what is written while it syncs may not have become durable
        real_sync(fd, path)
        if path.suffix == ".part":
            durable.update(before)

    def commit(self: Journal, commits: list[CommitRecord]) -> None:
        for s in commits:
            missing = set(range(s.offset, s.offset + s.length)) - durable
            assert not missing, f"chunk {s.chunk} is committed, but {len(missing)} of its bytes lie behind no barrier"
            committed.append(s.chunk)
        real_stamp(self, commits)

    monkeypatch.setattr(files, "pwrite_all", write)
    monkeypatch.setattr(files, "sync_data", sync)
    monkeypatch.setattr(Journal, "commit", commit)
    monkeypatch.setattr(run, "_COMMIT_SECONDS", 0.001)
    plan = make_plan(tmp_path, toys())
    go(plan)
    assert sorted(committed) == [c.number for c in plan.chunks()]


def test_a_digest_covers_every_piece_of_its_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, toys())
    monkeypatch.setattr(job.Job, "publish", lambda self: (_ for _ in ()).throw(Stopped("before it is published")))
    with pytest.raises(Stopped):
        go(plan)
    found = read_progress(plan.job_dir / "index.wal")
    assert found is not None
    data = (plan.job_dir / "data-1.part").read_bytes()
    digests = {s.chunk: s.digest for s in found.commits}
    assert digests == {c.number: xxhash.xxh3_128_digest(data[c.offset :][: c.length]) for c in plan.chunks()}


@pytest.mark.parametrize("at", [64, 64 + 255])
def test_damage_at_either_end_of_a_chunk_is_found_when_it_is_read_back_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 60)
    with open(plan.job_dir / "data-1.part", "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr(verify, "_READ_BYTES", 100)
    notes = go(plan).notes
    assert any("1 finished chunks do not match" in note for note in notes), notes


@pytest.mark.parametrize("least", [64 + 64 + 128, 400, 460])
def test_parts_that_end_between_aligned_addresses_fit_any_buffer(tmp_path: Path, least: int) -> None:
    wide, narrow = ((tmp_path / name) for name in ("wide", "narrow"))
    for folder, piece in ((wide, 1 << 20), (narrow, least)):
        folder.mkdir()
        go(make_plan(folder, parted(), n_files=3), piece)
    for path in sorted(wide.glob("out*")):
        assert path.read_bytes() == (narrow / path.name).read_bytes()


def test_a_run_that_lost_its_job_stamps_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "lock_exclusively", lambda fd: True)
    first, second = (job.Job.open(make_plan(tmp_path, toys())) for _ in range(2))
    with pytest.raises(Locked):
        run.run(first, Budget(1 << 24, 1, PIECE, 128, 1 << 20), Silent(), run.StopRequest())
    assert list(second.journal.commits()) == []
    first.close()
    second.close()
