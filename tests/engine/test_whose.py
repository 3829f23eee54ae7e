"""Whose is it? Records, job folders and files in the output's place that are not what they seem."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_jobs import Toy, folder_plan, go, interrupted, listing, make_plan, toys

from streamconv.engine import files, job, publishing
from streamconv.engine.existing import look
from streamconv.engine.record import load, pending_path, record_path, sealed
from streamconv.errors import CannotCreate, NoPermission


def _record(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    go(make_plan(tmp_path, toys()))
    path = record_path(tmp_path / "out.bin")
    return path, json.loads(path.read_text().splitlines()[0])


@pytest.mark.parametrize(
    "name", ["../thesis.tex", "/etc/passwd", "sub/../../thesis.tex", "other/thesis.tex", "", ".", "a\0b", "\ud800"]
)
def test_a_record_that_names_files_of_others_is_none(tmp_path: Path, name: str) -> None:
    path, facts = _record(tmp_path)
    facts["files"][0]["name"] = name
    path.write_text(sealed(facts))
    assert load(path) is None


@pytest.mark.parametrize(("key", "value"), [
    ("size", 1 << 70), ("size", -1), ("size", float("inf")), ("header", [1 << 40, ""]), ("header", [-1, ""]),
    ("ranges", [[0, 1 << 62, "", "", "t"]]), ("ranges", [[1 << 62, 1, "", "", "t"]]), ("ranges", [[100, -50, "", "", "t"]]),
    ("ranges", [[200, 64, "", "", "t"], [100, 64, "", "", "t"]]), ("ranges", {"a": 1}),
])  # fmt: skip
def test_a_record_whose_ranges_do_not_lie_in_the_file_is_none(tmp_path: Path, key: str, value: object) -> None:
    """Else whoever compares the file with it would read for years."""
    path, facts = _record(tmp_path)
    facts["files"][0][key] = value
    path.write_text(sealed(facts))
    assert load(path) is None
    assert look(make_plan(tmp_path, toys())).complete


def test_a_record_of_which_there_is_a_backup_under_another_name_is_believed(tmp_path: Path) -> None:
    path, _ = _record(tmp_path)
    os.link(path, tmp_path / "backup")
    assert load(path) is not None
    go(make_plan(tmp_path, toys(), "new"), update=True)
    assert look(make_plan(tmp_path, toys(), "new")).complete


def test_every_name_that_a_job_can_have_leaves_room_for_its_record(tmp_path: Path) -> None:
    """Temporary names beside a record are longer than its own, and that is only learnt after all the work."""
    lengths = (226, 227, 228, 240, 244)
    for name in {name for n in lengths for name in ("x" * n, "é" * (n // 2), "x" * (n - 1) + "\udcff")}:
        plan = make_plan(tmp_path, toys())
        plan = replace(plan, output=tmp_path / name, files=[replace(plan.files[0], path=tmp_path / name)])
        go(plan)
        assert look(plan).complete
        assert load(record_path(plan.output)) is not None


def test_shards_that_are_not_on_record_are_not_removed(tmp_path: Path) -> None:
    go(make_plan(tmp_path, toys(), "shards", n_files=3))
    record_path(tmp_path / "out.bin").unlink()
    go(make_plan(tmp_path, toys(), "one"), update=True)
    go(make_plan(tmp_path, toys(), "another"), update=True)
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.bin", "out0.bin", "out1.bin", "out2.bin"]


def test_a_shard_that_was_written_to_since_is_not_removed(tmp_path: Path) -> None:
    go(make_plan(tmp_path, toys(), "shards", n_files=3))
    (tmp_path / "out1.bin").write_text("mine")
    go(make_plan(tmp_path, toys(), "one"), update=True)
    assert (tmp_path / "out1.bin").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.bin", "out1.bin"]


def test_a_shard_that_is_replaced_at_the_last_moment_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_plan(tmp_path, toys(), "shards", n_files=3))
    real, mine = files.publish, tmp_path / "out1.bin"

    def publish(part: Path, final: Path) -> None:
        if part == mine:
            part.unlink()
            part.write_text("mine")
        real(part, final)

    monkeypatch.setattr(files, "publish", publish)
    go(make_plan(tmp_path, toys(), "one"), update=True)
    assert mine.read_text() == "mine"


def test_a_first_shard_that_is_replaced_at_the_last_moment_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_plan(tmp_path, toys(), "old", n_files=2))
    real, mine = files.publish, tmp_path / "out0.bin"

    def publish(part: Path, final: Path) -> None:
        if part == mine:
            part.unlink()
            part.write_text("mine")
        real(part, final)

    monkeypatch.setattr(files, "publish", publish)
    with pytest.raises(CannotCreate, match="was just replaced or changed"):
        go(make_plan(tmp_path, toys(), "new", n_files=2), update=True)
    assert mine.read_text() == "mine"


def test_what_comes_between_two_renames_where_names_cannot_be_exchanged_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_plan(tmp_path, toys(), "old"))
    monkeypatch.setattr(files, "rename_with", lambda flag, old, new: False)
    real, final = os.rename, tmp_path / "out.bin"

    def rename(old: Path, new: Path) -> None:
        real(old, new)
        if old == final:
            final.write_text("mine")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CannotCreate):
        go(make_plan(tmp_path, toys(), "new"), update=True)
    assert final.read_text() == "mine"


@pytest.mark.parametrize("what", ["a file", "a folder", "a link"])
def test_what_takes_the_records_place_during_the_run_stays(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = make_plan(tmp_path, toys()), publishing.place
    path = record_path(plan.output)

    def place(*args: Any) -> None:
        real(*args)
        if what == "a file":
            path.write_text("mine")
        elif what == "a folder":
            path.mkdir()
        else:
            path.symlink_to("thesis.tex")

    monkeypatch.setattr(publishing, "place", place)
    with pytest.raises(CannotCreate, match="has just appeared"):
        go(plan)
    assert what != "a file" or path.read_text() == "mine"
    assert look(plan).complete
    assert path.is_symlink() == (what == "a link")


def test_a_hidden_output_does_not_take_the_record_of_another_for_its_job(tmp_path: Path) -> None:
    go(make_plan(tmp_path, toys()))
    plan = make_plan(tmp_path, toys())
    hidden = tmp_path / ".out.bin"
    plan = replace(plan, output=hidden, files=[replace(plan.files[0], path=hidden)])
    with pytest.raises(CannotCreate, match=r"is the record of out\.bin"):
        look(plan).refuse(force=True)


@pytest.mark.parametrize(
    "name", ["notes.txt", "old-photos", "draft.tmp", "data-1.part.bak", "mine.json", "records/notes.txt", "old/x"]
)
@pytest.mark.parametrize("flags", [{}, {"force": True}])
def test_what_lies_in_a_job_folder_and_is_not_the_jobs_stays(tmp_path: Path, name: str, flags: dict[str, bool]) -> None:
    interrupted(make_plan(tmp_path, toys(), "old" if flags else 0), 50)
    plan = make_plan(tmp_path, toys())
    mine = plan.job_dir / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    go(plan, **flags)
    assert look(plan).complete
    assert [p.relative_to(plan.job_dir).as_posix() for p in plan.job_dir.rglob("*") if p.is_file()] == [name]
    job.leftover(plan)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["records", "old", "out"])
@pytest.mark.parametrize("what", ["link", "file"])
def test_what_the_end_of_a_job_would_stumble_over_is_met_before_its_work(tmp_path: Path, name: str, what: str) -> None:
    toy = Toy("a")
    plan = make_plan(tmp_path, [toy])
    plan.job_dir.mkdir(0o700)
    (plan.job_dir / "lock").write_text('{"pid": 1}')
    (plan.job_dir / name).symlink_to(tmp_path) if what == "link" else (plan.job_dir / name).write_text("mine")
    with pytest.raises(NoPermission, match=name):
        go(plan)
    assert toy.made == []


@pytest.mark.parametrize("inside", ["mine.txt", "more/mine.txt", "sub/", "link", "../old/mine.txt"])
@pytest.mark.parametrize("tag", ["new", "another"])
def test_what_lies_among_the_parts_of_a_folder_gets_neither_lost_nor_into_it(
    tmp_path: Path, inside: str, tag: str
) -> None:
    interrupted(folder_plan(tmp_path, "new"), 50)
    plan = folder_plan(tmp_path, tag)
    mine = plan.staging / inside
    if inside == "link":
        mine.symlink_to(tmp_path)
    else:
        mine.parent.mkdir(exist_ok=True)
        mine.mkdir() if inside.endswith("/") else mine.write_text("keep me")
    before = listing(plan.job_dir)
    with pytest.raises(CannotCreate, match="but no job wrote it"):
        go(plan, force=True)
    now = listing(plan.job_dir)
    assert os.path.lexists(mine)
    assert {n for n in before if now.get(n) != before[n]} <= {"lock"}, "the unfinished job is kept"
    mine.rmdir() if inside.endswith("/") else mine.unlink()
    go(plan, force=True)
    assert look(plan).complete
    assert not plan.job_dir.exists()


def test_parts_are_known_for_such_though_the_plan_of_their_job_is_lost(tmp_path: Path) -> None:
    interrupted(folder_plan(tmp_path, "old"), 50)
    plan = folder_plan(tmp_path, "new")
    plan = replace(plan, files=[replace(f, path=f.path.with_name(f"n-{f.path.name}")) for f in plan.files])
    (plan.job_dir / "plan.json").unlink()
    (plan.job_dir / "out" / "more" / "x.txt").unlink()  # without a byte it could be anybody's
    go(plan, force=True)
    assert sorted(listing(plan.output)) == ["more/n-x.txt", "n-config.json", "n-out0.bin", "n-out1.bin"]


def test_a_file_that_comes_among_the_parts_while_it_runs_is_met_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real = folder_plan(tmp_path), job.Job.publish

    def publish(self: job.Job) -> None:
        (plan.staging / "mine.txt").write_text("keep me")
        real(self)

    monkeypatch.setattr(job.Job, "publish", publish)
    with pytest.raises(CannotCreate, match="no job wrote it"):
        go(plan)
    assert not plan.output.exists()
    assert (plan.staging / "mine.txt").read_text() == "keep me"


def test_a_folder_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    plan = folder_plan(tmp_path)
    plan.output.mkdir()
    plan.output.chmod(0o2750)
    go(plan)
    assert plan.output.stat().st_mode & 0o7777 == 0o2750


def test_a_pending_record_in_a_folder_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    go(make_plan(tmp_path, toys(), "old"))
    plan, record = make_plan(tmp_path, toys(), "new"), record_path(tmp_path / "out.bin")
    pending = pending_path(plan.job_dir, plan.output)
    pending.parent.mkdir(parents=True)
    record.rename(pending)
    look(plan).refuse(update=True)
    plan.job_dir.chmod(0o777)
    with pytest.raises(CannotCreate):
        look(plan).refuse(update=True)


def test_files_that_a_killed_run_had_given_their_names_go_when_its_job_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, given = files.publish_new, []

    class Killed(BaseException):
        pass

    def publish_new(part: Path, final: Path) -> None:
        if part.suffix == ".part":
            if given:
                raise Killed
            given.append(final)
        real(part, final)

    with monkeypatch.context() as patch:
        patch.setattr(files, "publish_new", publish_new)
        with pytest.raises(Killed):
            go(make_plan(tmp_path, toys(), "shards", n_files=3))
    assert [p.name for p in tmp_path.glob("out*.bin")] == ["out2.bin"]
    go(make_plan(tmp_path, toys(), "one"), update=True)
    assert [p.name for p in tmp_path.glob("out*")] == ["out.bin"]


def test_what_an_old_folder_left_in_the_job_folder_is_known_by_its_record_wherever_it_was_moved(tmp_path: Path) -> None:
    """A job folder that came back from a backup, as a kill between two folders that change places had left it."""
    go(folder_plan(tmp_path, "old"))
    plan = folder_plan(tmp_path, "new")
    interrupted(plan, 50)
    for name in ("config.json", "out0.bin"):
        target = plan.job_dir / "old" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((plan.output / name).read_bytes())  # another time, another inode
    go(plan, update=True)
    assert look(plan).complete
    assert not plan.job_dir.exists()
