"""Whole jobs over a toy item: resume, refusal, corruption, publishing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_journal import of_version

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.journal import PUBLISHED, Journal
from streamconv.engine.lock import JobLock
from streamconv.engine.plan import OutputFile, Placement, Plan, fingerprint
from streamconv.errors import (
    CannotCreate,
    InputChanged,
    Locked,
    PlanDiffers,
    Stopped,
    StreamconvError,
    TryAgain,
    WriteFailed,
)
from streamconv.progress import Silent
from streamconv.rows import Bytes, Floats, Quality


class Toy:
    """Rows whose bytes follow from name and row number; counts what it made."""

    def __init__(self, name: str, n_rows: int = 40, *row_bytes: int) -> None:
        self.name, self.n_rows, self.row_bytes = name, n_rows, row_bytes or (64,)
        self.n_cols = self.row_bytes[0]
        self.made: list[int] = []
        self.hook: Callable[[int], None] = lambda row: None

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        for r in range(start, stop):
            self.hook(r)
            self.made.append(r)
            for part, out in enumerate(outs):
                if out is not None:
                    assert out.ctypes.data % 16 == 0, "kernels are compiled for aligned arrays"
                    seed = int.from_bytes(hashlib.sha256(f"{self.name}/{r}/{part}".encode()).digest()[:4], "little")
                    out[r - start] = np.random.default_rng(seed).integers(0, 256, self.row_bytes[part], np.uint8)
        return [Quality() for _ in outs]

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


def make_plan(folder: Path, toys: list[Toy], tag: object = 0, n_files: int = 1, mtime_ns: int = 1) -> Plan:
    header = b"HEAD" + fingerprint(tag).ljust(60, b"\0")
    placements, sizes = [], [len(header)] * n_files
    number = 0
    for toy in toys:
        for part, row_bytes in enumerate(toy.row_bytes):
            f = number % n_files
            number += 1
            placements.append(Placement(toy, part, f, sizes[f]))
            sizes[f] += toy.n_rows * row_bytes
    return Plan(
        output=folder / "out.bin",
        files=[OutputFile(folder / f"out{'' if n_files == 1 else i}.bin", header, s) for i, s in enumerate(sizes)],
        placements=placements,
        fingerprint=fingerprint(tag),
        inputs=[{"name": "in.bin", "size": 10, "mtime_ns": mtime_ns}],
        verify_inputs=lambda: None,
        description={"tag": tag},
        chunk_bytes=256,
    )


def toys() -> list[Toy]:
    return [Toy("a"), Toy("b", 7), Toy("c", 33, 100)]


def go(plan: Plan, *, threads: int = 2, verify: str = "all", force: bool = False) -> run.Outcome:
    opened = job.Job.open(plan, verify=verify, force=force)
    try:
        return run.run(opened, share(1 << 24, threads, 64, 128), Silent(), run.StopRequest())
    finally:
        opened.close()


@pytest.fixture
def expected(tmp_path: Path) -> bytes:
    folder = tmp_path / "expected"
    folder.mkdir()
    go(make_plan(folder, toys()))
    return (folder / "out.bin").read_bytes()


def interrupted(plan: Plan, after: int, error: Exception | None = None) -> None:
    """Run ``plan`` until ``after`` rows were begun, then stop it by ``error``."""
    count = 0

    def hook(_row: int) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise error or Stopped("enough")

    for p in plan.placements:
        assert isinstance(p.item, Toy)
        p.item.hook = hook
    with pytest.raises(type(error or Stopped(""))):
        go(plan, threads=1)
    for p in plan.placements:
        assert isinstance(p.item, Toy)
        p.item.hook = lambda row: None
        p.item.made.clear()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_bytes_do_not_depend_on_the_number_of_threads(tmp_path: Path, expected: bytes, threads: int) -> None:
    go(make_plan(tmp_path, toys()), threads=threads)
    assert (tmp_path / "out.bin").read_bytes() == expected
    assert not (tmp_path / "out.bin.streamconv").exists()


@pytest.mark.parametrize("after", [0, 1, 5, 39, 60])
def test_a_stopped_job_goes_on_and_makes_no_finished_row_again(tmp_path: Path, expected: bytes, after: int) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, after)
    assert not (tmp_path / "out.bin").exists()
    outcome = go(plan)
    assert (tmp_path / "out.bin").read_bytes() == expected
    assert outcome.made_bytes + outcome.resumed_bytes == len(expected)
    made = sum(len(p.item.made) for p in plan.placements)  # type: ignore[attr-defined]
    assert made <= 80 - after + 4  # at most the chunk that was being made


@pytest.mark.parametrize("after", [0, 50])
def test_progress_ends_at_the_bytes_of_all_files(tmp_path: Path, after: int) -> None:
    plan = make_plan(tmp_path, toys(), n_files=2)
    interrupted(plan, after)
    opened, reporter = job.Job.open(plan), Silent()
    run.run(opened, share(1 << 24, 2, 64, 128), reporter, run.StopRequest())
    opened.close()
    assert reporter.done == reporter.total == sum(f.path.stat().st_size for f in plan.files)


def test_until_it_is_published_no_loader_takes_the_part_for_a_model(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    assert (plan.job_dir / "data-1.part").read_bytes()[:4] == b"SCVP"
    assert plan.job_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["flip", "zeros", "truncate", "extend", "remove"])
def test_damage_to_the_part_file_is_found_and_only_that_chunk_is_made_again(
    tmp_path: Path, expected: bytes, damage: str
) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 60)
    part = plan.job_dir / "data-1.part"
    raw = bytearray(part.read_bytes())
    if damage == "flip":
        raw[700] ^= 8
    elif damage == "zeros":
        raw[640:704] = bytes(64)
    elif damage == "truncate":
        del raw[1000:]
    elif damage == "extend":
        raw += b"tail"
    part.write_bytes(raw) if damage != "remove" else part.unlink()
    outcome = go(plan)
    assert (tmp_path / "out.bin").read_bytes() == expected
    if damage in ("flip", "zeros"):
        assert sum(len(p.item.made) for p in plan.placements) <= 20 + 4 + 4  # type: ignore[attr-defined]
        assert any("(a)" in note for note in outcome.notes)


@pytest.mark.parametrize("name", ["index.wal", "plan.json", "lock"])
@pytest.mark.parametrize("what", ["gone", "empty", "half", "garbage"])
def test_any_damaged_job_file_costs_work_at_most(tmp_path: Path, expected: bytes, name: str, what: str) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    path = plan.job_dir / name
    raw = path.read_bytes()
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "half": raw[: len(raw) // 2], "garbage": os.urandom(len(raw))}[what])
    go(plan)
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_another_plan_over_an_unfinished_job_is_refused_and_force_starts_over(tmp_path: Path, expected: bytes) -> None:
    interrupted(make_plan(tmp_path, toys(), tag="old"), 50)
    before = sorted(p.name for p in (tmp_path / "out.bin.streamconv").iterdir())
    plan = make_plan(tmp_path, toys(), tag="new")
    with pytest.raises(PlanDiffers, match="tag: old there, new now") as caught:
        go(plan)
    assert caught.value.exit_code == 78
    assert sorted(p.name for p in plan.job_dir.iterdir()) == before
    go(plan, force=True)
    assert (tmp_path / "out.bin").read_bytes()[64:] == expected[64:]


def test_a_job_of_a_later_version_is_left_as_it_is_until_forced(tmp_path: Path, expected: bytes) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    of_version(plan.job_dir / "index.wal", 2)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in plan.job_dir.iterdir()}
    with pytest.raises(PlanDiffers, match="format 2, this one knows 1"):
        go(plan)
    (tmp_path / "out.bin").write_bytes(expected)  # finished otherwise: even then it is not ours to remove
    job.leftover(plan)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in plan.job_dir.iterdir()} == before
    go(plan, force=True)
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_a_touched_input_is_refused_and_the_job_stays(tmp_path: Path) -> None:
    interrupted(make_plan(tmp_path, toys()), 50)
    with pytest.raises(InputChanged, match=r"in\.bin was changed") as caught:
        go(make_plan(tmp_path, toys(), mtime_ns=2))
    assert caught.value.exit_code == 65
    go(make_plan(tmp_path, toys()))


def test_a_lost_plan_does_not_hide_that_an_input_was_touched(tmp_path: Path, expected: bytes) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    (plan.job_dir / "plan.json").unlink()
    outcome = go(make_plan(tmp_path, toys(), mtime_ns=2))
    assert outcome.resumed_bytes == 0
    assert outcome.notes == ["an input was written since the unfinished job was planned; starting over"]
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_a_plan_that_rotted_accuses_no_input(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    text = (plan.job_dir / "plan.json").read_text()
    (plan.job_dir / "plan.json").write_text(text.replace('"mtime_ns": 1', '"mtime_ns": 3'))
    assert go(plan).resumed_bytes > 0


def test_force_over_a_touched_input_keeps_nothing_that_was_made_of_the_old_one(tmp_path: Path) -> None:
    interrupted(make_plan(tmp_path, toys()), 50)
    assert go(make_plan(tmp_path, toys(), mtime_ns=2), force=True).resumed_bytes == 0


def test_force_goes_on_with_an_unfinished_job_of_the_same_plan_and_inputs(tmp_path: Path) -> None:
    interrupted(make_plan(tmp_path, toys()), 50)
    assert go(make_plan(tmp_path, toys()), force=True).resumed_bytes > 0


def test_an_input_that_changes_while_it_runs_leaves_nothing_stamped(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())

    def changed() -> None:
        raise InputChanged("in.bin changed")

    object.__setattr__(plan, "verify_inputs", changed)
    with pytest.raises(InputChanged):
        go(plan)
    assert not (tmp_path / "out.bin").exists()
    object.__setattr__(plan, "verify_inputs", lambda: None)
    assert go(plan).resumed_bytes == 0


def test_an_input_that_changes_after_the_last_commit_keeps_the_output_from_getting_its_name(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    opened = job.Job.open(plan)

    def changed() -> None:
        if len(list(opened.journal.stamps())) == len(plan.chunks()):
            raise InputChanged("in.bin changed")

    object.__setattr__(plan, "verify_inputs", changed)
    with pytest.raises(InputChanged):
        run.run(opened, share(1 << 24, 2, 64, 128), Silent(), run.StopRequest())
    opened.close()
    assert not plan.output.exists()
    assert plan.job_dir.exists()


def test_two_runs_cannot_work_on_one_output(tmp_path: Path) -> None:
    first = job.Job.open(make_plan(tmp_path, toys()))
    with pytest.raises(Locked, match=f"pid {os.getpid()}") as caught:
        job.Job.open(make_plan(tmp_path, toys()))
    assert caught.value.exit_code == 75
    first.close()


def test_without_working_locks_the_run_that_lost_the_job_stops(
    tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "lock_exclusively", lambda fd: True)
    plan = make_plan(tmp_path, toys())
    first = job.Job.open(plan)
    second = job.Job.open(make_plan(tmp_path, toys()))
    with pytest.raises(Locked, match="another process has taken over"):
        run.run(first, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    run.run(second, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    assert (tmp_path / "out.bin").read_bytes() == expected
    first.close()
    second.close()


def test_a_run_whose_folder_was_removed_and_begun_anew_by_another_publishes_nothing(
    tmp_path: Path, expected: bytes
) -> None:
    first = job.Job.open(make_plan(tmp_path, toys()))
    shutil.rmtree(first.plan.job_dir)  # and with it the lock
    second = job.Job.open(make_plan(tmp_path, toys()))
    with pytest.raises(Locked, match="another process has taken over"):
        run.run(first, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    assert not (tmp_path / "out.bin").exists()
    run.run(second, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    assert (tmp_path / "out.bin").read_bytes() == expected
    first.close()
    second.close()


def test_only_the_file_that_was_written_gets_the_final_name(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    opened = job.Job.open(plan)
    part = plan.part_path(0)
    part.unlink()
    part.write_bytes(b"SCVP")
    with pytest.raises(Locked, match="another process has taken over"):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    opened.close()
    assert not (tmp_path / "out.bin").exists()


def test_whoever_comes_while_a_finished_job_is_removed_does_not_make_it_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = make_plan(tmp_path, toys()), files.remove_file
    came: list[object] = []

    def remove_file(path: Path) -> None:
        if plan.output.exists():
            with pytest.raises(Locked):  # nobody gets in before the lock goes, and it goes last
                JobLock(plan.job_dir / "lock")
            assert path.name == "lock" or (plan.job_dir / "lock").exists()
        real(path)
        if path.name == "lock":
            came.append(JobLock(path))

    monkeypatch.setattr(files, "remove_file", remove_file)
    go(plan)
    assert job.is_finished(plan)
    assert [p.name for p in plan.job_dir.iterdir()] == ["lock"]  # the newcomer's
    came[0].close()  # type: ignore[attr-defined]
    monkeypatch.undo()
    job.leftover(plan)
    assert not plan.job_dir.exists()


def test_a_folder_that_goes_between_its_making_and_its_locking_means_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "make_dir", lambda path, mode=0: None)
    with pytest.raises(Locked, match="has just finished"):
        job.Job.open(make_plan(tmp_path, toys()))


def test_a_finished_output_does_not_cost_the_unfinished_job_of_another_plan(tmp_path: Path) -> None:
    done = make_plan(tmp_path, toys())
    go(done)
    other = make_plan(tmp_path, toys(), tag="other")
    interrupted(other, 50)
    assert job.is_finished(done)
    job.leftover(done)
    assert go(other, force=True).resumed_bytes > 0


def test_a_finished_output_is_recognised_and_a_foreign_one_is_not_replaced(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    assert not job.is_finished(plan)
    go(plan)
    assert job.is_finished(plan)
    job.refuse_foreign_output(plan)
    with pytest.raises(CannotCreate, match="was not made by this plan") as caught:
        job.refuse_foreign_output(make_plan(tmp_path, toys(), tag="other"))
    assert caught.value.exit_code == 73


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_appears_in_the_outputs_place_during_the_run_is_not_replaced(tmp_path: Path, is_folder: bool) -> None:
    plan = folder_plan(tmp_path) if is_folder else make_plan(tmp_path, toys())
    opened = job.Job.open(plan)
    if is_folder:
        plan.output.mkdir()
    mine = plan.output / "mine" if is_folder else plan.output
    mine.write_text("keep me")
    with pytest.raises(CannotCreate, match="was not made by this plan"):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    opened.close()
    assert mine.read_text() == "keep me"
    assert go(plan, force=True).made_bytes == sum(len(f.header) for f in plan.files)
    assert job.is_finished(plan)


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_a_system_that_grants_too_few_threads_is_an_error_that_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: int
) -> None:
    plan, real, begun = make_plan(tmp_path, toys()), threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if len(begun) == granted:
            raise RuntimeError("can't start new thread")
        begun.append(self)
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(TryAgain, match="grants only"):
        go(plan, threads=3)
    assert not any(t.is_alive() for t in begun)
    monkeypatch.undo()
    go(plan)
    assert job.is_finished(plan)


def test_an_output_older_than_its_input_is_not_finished(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    go(plan)
    newer = make_plan(tmp_path, toys(), mtime_ns=(tmp_path / "out.bin").stat().st_mtime_ns + 1)
    assert not job.is_finished(newer)
    assert go(newer).made_bytes > 0


def test_force_over_a_finished_output_makes_it_again(tmp_path: Path, expected: bytes) -> None:
    go(make_plan(tmp_path, toys()))
    outcome = go(make_plan(tmp_path, toys()), force=True)
    assert outcome.made_bytes == len(expected)


def test_a_kill_between_the_renames_of_two_files_is_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, toys(), n_files=2)
    real, seen = files.publish, []

    def publish(part: Path, final: Path) -> None:
        if part.suffix == ".part" and seen:
            raise StreamconvError("killed")
        seen.extend([final] if part.suffix == ".part" else [])
        real(part, final)

    monkeypatch.setattr(files, "publish", publish)
    with pytest.raises(StreamconvError, match="killed"):
        go(plan)
    assert [f.path.exists() for f in plan.files] == [False, True]  # the first file comes last
    monkeypatch.setattr(files, "publish", real)
    for p in plan.placements:
        p.item.made.clear()  # type: ignore[attr-defined]
    go(plan)
    assert [p.item.made for p in plan.placements] == [[], [], []]  # type: ignore[attr-defined]
    assert job.is_finished(plan)


def test_a_failed_sync_is_fatal_and_stamps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, toys())
    opened = job.Job.open(plan)
    real = files.sync_data

    def failing(fd: int, path: Path) -> None:
        if path.suffix == ".part":
            raise WriteFailed("EIO")
        real(fd, path)

    monkeypatch.setattr(files, "sync_data", failing)
    with pytest.raises(WriteFailed):
        run.run(opened, share(1 << 24, 2, 64, 128), Silent(), run.StopRequest())
    assert list(opened.journal.stamps()) == []
    opened.close()


def test_a_failed_write_is_never_followed_by_the_mark_of_an_orderly_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = make_plan(tmp_path, toys()), files.sync_data
    opened = job.Job.open(plan)
    failed = threading.Event()

    def failing(fd: int, path: Path) -> None:
        if path.suffix == ".part":
            failed.set()
            raise WriteFailed("EIO")
        real(fd, path)

    def bad(row: int) -> None:
        if row > 20:
            raise StreamconvError("a bad input, met before the write failed")

    monkeypatch.setattr(files, "sync_data", failing)
    for p in plan.placements:
        p.item.hook = bad  # type: ignore[attr-defined]
    with pytest.raises(WriteFailed):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    assert failed.is_set()
    assert opened.journal.header.clean_generation == 0
    opened.close()


def test_plan_json_names_the_inputs_and_the_plan(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys(), tag="x")
    interrupted(plan, 50)
    record = json.loads((plan.job_dir / "plan.json").read_text())
    assert record["tag"] == "x"
    assert record["inputs"] == [{"name": "in.bin", "size": 10, "mtime_ns": 1}]
    assert record["fingerprint"] == plan.fingerprint.hex()


def test_only_chunks_with_nan_or_inf_are_made_again_when_those_are_not_allowed_any_more(
    tmp_path: Path, expected: bytes
) -> None:
    class Bad(Toy):
        def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
            super().fill(start, stop, outs, scratch)
            return [Quality(nonfinite=int(start <= 17 < stop)) for _ in outs]

    plan = make_plan(tmp_path, [Bad("a"), Toy("b", 7), Toy("c", 33, 100)])
    interrupted(plan, 60)
    strict = replace(plan, admits_nonfinite=False)
    opened = job.Job.open(strict)
    (chunk,) = {c.number for c in strict.chunks() if c.item.name == "a" and c.start <= 17 < c.stop}
    stamped = {s.chunk for s in opened.journal.stamps()}
    assert chunk not in opened.done
    assert opened.done.keys() == stamped
    assert opened.notes == ["1 finished chunks hold NaN or Inf, which were allowed then; they are made again"]
    opened.close()
    assert go(plan).quality["a", 0].nonfinite == 1
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_the_output_folder_must_exist_and_the_disk_must_be_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotCreate, match="is not a folder"):
        job.preflight(make_plan(tmp_path / "nowhere", toys()))
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    with pytest.raises(WriteFailed, match="for the output, 67,108,864 to spare\\), 1,000 are free"):
        job.preflight(make_plan(tmp_path, toys()))


# Items of several parts, and folders


def parted() -> list[Toy]:
    return [Toy("a", 40, 64, 33, 100), Toy("b", 7, 128), Toy("c", 33, 20, 50)]


def test_parts_of_an_item_are_made_from_one_read_and_resume_apart(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = make_plan(tmp_path / "whole", parted(), n_files=3)
    go(whole)
    made = {p.item.name: p.item.made for p in whole.placements}  # type: ignore[attr-defined]
    assert [sorted(rows) for rows in made.values()] == [list(range(40)), list(range(7)), list(range(33))]
    plan = make_plan(tmp_path / "cut", parted(), n_files=3)
    interrupted(plan, 50)
    lost = bytearray((plan.job_dir / "data-2.part").read_bytes())
    lost[200] ^= 1
    (plan.job_dir / "data-2.part").write_bytes(lost)
    go(plan)
    for a, b in zip(whole.files, plan.files, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()
    again = [row for p in plan.placements[:1] for row in p.item.made]  # type: ignore[attr-defined]
    assert 0 < len(again) < 40, "only the damaged part's rows are made again"


def folder_plan(parent: Path, tag: object = 0) -> Plan:
    plan = make_plan(parent, toys(), tag, n_files=2)
    folder = parent / "out"
    listed = [replace(f, path=folder / f.path.name) for f in plan.files]
    listed += [OutputFile(folder / "config.json", b"{}", 2), OutputFile(folder / "more" / "x.txt", b"", 0)]
    return replace(plan, output=folder, files=listed, folder=folder)


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    plan = folder_plan(tmp_path)
    interrupted(plan, 50)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.streamconv"]
    go(plan)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert list(listing(plan.output)) == ["config.json", "more/x.txt", "out0.bin", "out1.bin"]
    assert plan.output.stat().st_mode & 0o777 == 0o777 & ~_umask()
    assert job.is_finished(plan)
    job.refuse_foreign_output(folder_plan(tmp_path / "elsewhere"))


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_folder_that_is_there_is_replaced_only_when_forced(tmp_path: Path) -> None:
    plan = folder_plan(tmp_path)
    plan.output.mkdir()
    job.refuse_foreign_output(plan)  # an empty one may be used
    (plan.output / "mine.txt").write_text("keep me")
    with pytest.raises(CannotCreate, match="was not made by this plan"):
        job.refuse_foreign_output(plan)
    go(plan, force=True)
    assert "mine.txt" not in listing(plan.output)
    assert len(listing(plan.output)) == 4


@pytest.mark.parametrize("moves", [0, 1])
def test_a_kill_while_a_folder_is_published_is_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    plan = folder_plan(tmp_path)
    plan.output.mkdir()
    real, seen = files.publish, []

    def publish(part: Path, final: Path) -> None:
        if part.is_dir():
            if len(seen) == moves:
                raise StreamconvError("killed")
            seen.append(final)
        real(part, final)

    monkeypatch.setattr(files, "publish", publish)
    with pytest.raises(StreamconvError, match="killed"):
        go(plan)
    monkeypatch.setattr(files, "publish", real)
    for p in plan.placements:
        p.item.made.clear()  # type: ignore[attr-defined]
    go(plan)
    assert [p.item.made for p in plan.placements] == [[], [], []]  # type: ignore[attr-defined]
    assert len(listing(plan.output)) == 4
    assert job.is_finished(plan)


def test_a_folder_that_was_written_to_between_its_renaming_and_a_forced_run_is_made_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = folder_plan(tmp_path), Journal.mark

    def killed(self: Journal, state: int) -> None:
        if state == PUBLISHED:
            raise StreamconvError("killed")
        real(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "mark", killed)
        with pytest.raises(StreamconvError, match="killed"):
            go(plan)
    right = listing(plan.output)
    (plan.output / "config.json").write_text("[]")
    go(plan, force=True)
    assert listing(plan.output) == right


def test_a_deadline_that_is_past_still_brings_the_job_forward(tmp_path: Path, expected: bytes) -> None:
    plan = make_plan(tmp_path, toys())
    for _ in range(100):
        opened = job.Job.open(plan)
        try:
            run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest(0))
            break
        except Stopped:
            pass
        finally:
            opened.close()
    assert (tmp_path / "out.bin").read_bytes() == expected
