"""Final names: who gets one and when, what lies there already, and kills between one rename and the next."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_jobs import folder_plan, go, interrupted, listing, make_plan, toys

from streamconv.engine import files, job, publishing, run
from streamconv.engine.budget import share
from streamconv.engine.existing import look
from streamconv.engine.plan import Plan
from streamconv.engine.record import record_path
from streamconv.errors import CannotCreate, InputChanged, Locked
from streamconv.progress import Silent


def test_an_input_that_changes_after_the_last_commit_keeps_the_output_from_getting_its_name(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    opened = job.Job.open(plan)

    def changed() -> None:
        if len(list(opened.journal.commits())) == len(plan.chunks()):
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
    assert look(done).complete
    job.leftover(done)
    assert go(other, force=True).resumed_bytes > 0


def test_a_finished_output_is_recognised_and_a_foreign_one_is_not_replaced(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    assert not look(plan).complete
    go(plan)
    assert look(plan).complete
    look(plan).refuse()
    other = make_plan(tmp_path, toys(), tag="other")
    with pytest.raises(CannotCreate, match="was not written by this plan") as caught:
        look(other).refuse()
    assert caught.value.exit_code == 73
    look(other).refuse(update=True)  # a plan of ours made it


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_appears_in_the_outputs_place_during_the_run_is_not_replaced(tmp_path: Path, is_folder: bool) -> None:
    plan = folder_plan(tmp_path) if is_folder else make_plan(tmp_path, toys())
    opened = job.Job.open(plan)
    if is_folder:
        plan.output.mkdir()
    mine = plan.output / "mine" if is_folder else plan.output
    mine.write_text("keep me")
    with pytest.raises(CannotCreate, match="holds mine" if is_folder else "was not written by this plan"):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    opened.close()
    assert mine.read_text() == "keep me"
    if is_folder:
        with pytest.raises(CannotCreate, match="holds mine"):
            go(plan, force=True)
        assert mine.read_text() == "keep me"
        mine.unlink()
    assert go(plan, force=True).made_bytes == sum(len(f.header) for f in plan.files)
    assert look(plan).complete


def test_without_a_record_an_output_older_than_its_input_is_made_again_only_when_asked(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    go(plan)
    record_path(plan.output).unlink()
    assert look(plan).complete
    newer = make_plan(tmp_path, toys(), mtime_ns=(tmp_path / "out.bin").stat().st_mtime_ns + 1)
    assert not look(newer).complete
    with pytest.raises(CannotCreate, match="has no record of the contents it was made from"):
        look(newer).refuse()
    assert go(newer, update=True).made_bytes > 0
    assert look(newer).complete


def test_force_over_a_finished_output_makes_it_again(tmp_path: Path, expected: bytes) -> None:
    go(make_plan(tmp_path, toys()))
    outcome = go(make_plan(tmp_path, toys()), force=True)
    assert outcome.made_bytes == len(expected)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _killed_after(monkeypatch: pytest.MonkeyPatch, n_renames: int) -> list[Path]:
    """Let nothing happen after so many files of the job folder have got other names; the names that were given."""
    given: list[Path] = []

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def publish(part: Path, final: Path, *more: object) -> None:
            if part.suffix == ".part" or part.name == "out":
                if len(given) == n_renames:
                    raise Killed
                given.append(final)
            real(part, final, *more)

        return publish

    for name in ("publish_new", "publish_over"):
        monkeypatch.setattr(files, name, counted(getattr(files, name)))
    return given


def _made(plan: Plan) -> list[list[int]]:
    return [p.item.made for p in plan.placements]  # type: ignore[attr-defined]


def test_a_kill_between_the_renames_of_two_files_is_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path, toys(), n_files=2)
    with monkeypatch.context() as patch:
        _killed_after(patch, 1)
        with pytest.raises(Killed):
            go(plan)
    assert [f.path.exists() for f in plan.files] == [False, True]  # the first file comes last
    for made in _made(plan):
        made.clear()
    go(plan)
    assert _made(plan) == [[], [], []]
    assert look(plan).complete


@pytest.mark.parametrize("n_renames", [0, 1, 2])
def test_no_mixture_of_two_sets_of_files_has_a_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renames: int
) -> None:
    go(make_plan(tmp_path, toys(), "old", n_files=3))
    old = {p.name: p.read_bytes() for p in tmp_path.glob("out*.bin")}
    plan = make_plan(tmp_path, toys(), "new", n_files=3)
    with monkeypatch.context() as patch:
        _killed_after(patch, n_renames)
        with pytest.raises(Killed):
            go(plan, update=True)
    now = {p.name: p.read_bytes() for p in tmp_path.glob("out*.bin")}
    assert "out0.bin" not in now or now == old
    assert sum(now[name] != old[name] for name in now) == n_renames
    go(plan, update=True)
    assert look(plan).complete
    assert not plan.job_dir.exists()


def test_files_that_the_new_set_has_not_are_removed(tmp_path: Path) -> None:
    go(make_plan(tmp_path, toys(), "old", n_files=3))
    (tmp_path / "out7.bin").write_text("mine")
    plan = make_plan(tmp_path, toys(), "new", n_files=2)
    with pytest.raises(CannotCreate, match="was not written by this plan"):
        look(plan).refuse()
    go(plan, update=True)
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out0.bin", "out1.bin", "out7.bin"]


def test_a_part_that_is_another_runs_gets_no_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, real = make_plan(tmp_path, toys()), files.publish_new
    theirs = b"another run's unfinished part"

    def publish_new(part: Path, final: Path) -> None:
        if part.suffix == ".part":  # between the last look and the rename
            part.rename(part.with_name("stolen"))
            part.write_bytes(theirs)
        real(part, final)

    monkeypatch.setattr(files, "publish_new", publish_new)
    with pytest.raises(Locked):
        go(plan)
    assert not plan.output.exists()
    assert plan.part_path(0).read_bytes() == theirs


def test_what_takes_the_outputs_place_between_the_last_look_and_the_rename_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_plan(tmp_path, toys(), "old"))
    plan, real = make_plan(tmp_path, toys(), "new"), files.publish_over

    def publish_over(part: Path, final: Path, *more: object) -> None:
        final.unlink()
        final.write_text("mine")
        real(part, final, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "publish_over", publish_over)
    with pytest.raises(CannotCreate, match="was just replaced by something else"):
        go(plan, update=True)
    assert plan.output.read_text() == "mine"


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_output_is_replaced_with_and_without_a_rename_that_exchanges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "rename_with", lambda flag, old, new: False)
    for plans in ([make_plan(tmp_path, toys(), tag) for tag in "ab"], [folder_plan(tmp_path, tag) for tag in "ab"]):
        for plan in plans:
            go(plan, update=True)
            assert look(plan).complete
            assert sorted(p.name for p in tmp_path.iterdir() if "streamconv" in p.name) == sorted(
                record_path(o).name for o in (tmp_path / "out.bin", tmp_path / "out") if o.exists()
            )


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    plan = folder_plan(tmp_path)
    interrupted(plan, 50)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.streamconv"]
    go(plan)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.streamconv", "out"]
    assert list(listing(plan.output)) == ["config.json", "more/x.txt", "out0.bin", "out1.bin"]
    assert plan.output.stat().st_mode & 0o777 == 0o777 & ~_umask()
    assert look(plan).complete
    look(folder_plan(tmp_path / "elsewhere")).refuse()


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_folder_is_replaced_only_if_it_holds_nothing_else(tmp_path: Path) -> None:
    plan = folder_plan(tmp_path)
    plan.output.mkdir()
    look(plan).refuse()  # an empty one may be used
    (plan.output / "mine.txt").write_text("keep me")
    for flags in ({}, {"update": True}, {"force": True}):
        with pytest.raises(CannotCreate, match=r"holds mine\.txt, which streamconv did not write"):
            look(plan).refuse(**flags)
        with pytest.raises(CannotCreate):
            go(plan, **flags)
    assert listing(plan.output) == {"mine.txt": b"keep me"}


@pytest.mark.parametrize("inside", ["mine.txt", "more/mine.txt", "sub/"])
def test_what_the_user_put_into_a_finished_folder_is_never_removed(tmp_path: Path, inside: str) -> None:
    go(folder_plan(tmp_path, "old"))
    path = tmp_path / "out" / inside
    path.mkdir() if inside.endswith("/") else path.write_text("keep me")
    with pytest.raises(CannotCreate, match="which streamconv did not write"):
        look(folder_plan(tmp_path, "new")).refuse(force=True)
    assert look(folder_plan(tmp_path, "old")).complete


def test_a_file_of_the_output_that_the_user_edited_is_replaced_only_when_forced(tmp_path: Path) -> None:
    go(folder_plan(tmp_path, "old"))
    (tmp_path / "out" / "config.json").write_text("[]")
    plan = folder_plan(tmp_path, "new")
    with pytest.raises(CannotCreate, match=r"config\.json was modified after it was written"):
        look(plan).refuse(update=True)
    go(plan, force=True)
    assert look(plan).complete


def test_what_came_into_a_folder_while_it_was_replaced_moves_to_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(folder_plan(tmp_path, "old"))
    plan, real = folder_plan(tmp_path, "new"), files.publish_over

    def publish_over(part: Path, final: Path, *more: object) -> None:
        (tmp_path / "out" / "more" / "mine.txt").write_text("keep me")
        real(part, final, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "publish_over", publish_over)
    go(plan, update=True)
    assert (tmp_path / "out" / "more" / "mine.txt").read_text() == "keep me"
    assert not plan.job_dir.exists()


def _first_time_only() -> Callable[[Path, object], bool]:
    """For ``settle``: nothing to settle when the job is opened, and a kill in the place of the call after the renames."""
    calls: list[Path] = []

    def settle(folder: Path, _lock: object) -> bool:
        calls.append(folder)
        if len(calls) > 1:
            raise Killed
        return False

    return settle


@pytest.mark.parametrize("n_renames", [0, 1])
@pytest.mark.parametrize("what", ["nothing", "an empty folder", "an older output"])
def test_a_kill_while_a_folder_is_published_is_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renames: int, what: str
) -> None:
    plan = folder_plan(tmp_path)
    if what == "an empty folder":
        plan.output.mkdir()
    elif what == "an older output":
        go(folder_plan(tmp_path, "old"))
    with monkeypatch.context() as patch:
        _killed_after(patch, 0) if not n_renames else patch.setattr(publishing, "recover", _first_time_only())
        with pytest.raises(Killed):
            go(plan, update=True)
    for made in _made(plan):
        made.clear()
    go(plan, update=True)
    assert _made(plan) == [[], [], []]
    assert len(listing(plan.output)) == 4
    assert look(plan).complete
    assert not plan.job_dir.exists()


def test_a_folder_that_was_written_to_between_its_renaming_and_a_forced_run_is_made_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = folder_plan(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "discard", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            go(plan)
    right = listing(plan.output)
    (plan.output / "config.json").write_text("[]")
    go(plan, force=True)
    assert listing(plan.output) == right
