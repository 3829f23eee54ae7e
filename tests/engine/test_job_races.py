"""Several at one job: what the lock keeps out, and what is noticed where it does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from toy_jobs import go, make_plan, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.existing import look
from streamconv.engine.lock import JobLock
from streamconv.errors import Locked
from streamconv.progress import Silent


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
    assert look(plan).complete
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
