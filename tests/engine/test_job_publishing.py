"""Final names: who gets one and when, what lies there already, and kills between one rename and the next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_jobs import folder_plan, go, interrupted, listing, make_plan, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.journal import PUBLISHED, Journal
from streamconv.errors import CannotCreate, InputChanged, StreamconvError
from streamconv.progress import Silent


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
