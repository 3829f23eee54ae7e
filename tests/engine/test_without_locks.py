"""Jobs that set up the same folder at the same time, where locks do nothing: one of them makes the output."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from toy_jobs import go, make_plan, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.index_file import CLEAN
from streamconv.engine.journal import Journal
from streamconv.errors import Locked
from streamconv.progress import Silent

#: steps of setting up a folder, before each of which another process may do all of it
STEPS = ["remove_file", "write_atomically", "open_for_writing", "allocate", "sync_data", "sync_dir", "publish_new"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[job.Job]]:
    """Jobs that were opened, to be closed in the end; locks do nothing and nobody waits."""
    monkeypatch.setattr(files, "lock_exclusively", lambda fd: True)
    monkeypatch.setattr(job.time, "sleep", lambda seconds: None)
    with ExitStack() as stack:
        found: list[job.Job] = []
        real = job.Job.open.__func__  # type: ignore[attr-defined]

        def noted(cls: type[job.Job], *args: object, **options: object) -> job.Job:
            found.append(real(cls, *args, **options))
            stack.callback(found[-1].close)
            return found[-1]

        monkeypatch.setattr(job.Job, "open", classmethod(noted))
        yield found


def finish(opened: job.Job) -> None:
    run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())


@pytest.mark.parametrize("n_files", [1, 2])
@pytest.mark.parametrize("discard", [False, True], ids=["", "forced"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_of_two_jobs_that_set_up_one_folder_at_once_exactly_one_goes_on(
    opened: list[job.Job],
    tmp_path: Path,
    step: str,
    nth: int,
    discard: bool,
    n_files: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "alone").mkdir()
    go(make_plan(tmp_path / "alone", toys(), n_files=n_files))
    opened.clear()
    work = tmp_path / "work"
    work.mkdir()
    real: Callable[..., object] = getattr(files, step)
    calls = 0

    def met(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth:
            monkeypatch.setattr(files, step, real)
            job.Job.open(make_plan(work, toys(), n_files=n_files), discard=discard)
        return real(*args, **options)

    monkeypatch.setattr(files, step, met)
    job.Job.open(make_plan(work, toys(), n_files=n_files), discard=discard)
    monkeypatch.setattr(files, step, real)
    ends = []
    for one in opened:
        try:
            finish(one)
            ends.append("published")
        except Locked:
            ends.append("gave up")
    assert sorted(ends) in ([["published"]] if calls < nth else [["gave up", "published"]])
    for path in (tmp_path / "alone").glob("out*"):
        assert (work / path.name).read_bytes() == path.read_bytes()
    for one in opened:
        one.close()
    assert sorted(p.name for p in work.iterdir()) == sorted(p.name for p in (tmp_path / "alone").iterdir())


def test_a_folder_in_which_others_are_always_quicker_is_left_to_them(
    opened: list[job.Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.publish_new

    def late(part: Path, final: Path) -> None:
        final.write_bytes(b"an index that cannot be read yet")
        real(part, final)

    monkeypatch.setattr(files, "publish_new", late)
    with pytest.raises(Locked, match=r"another process is working on this output: .*index\.wal"):
        job.Job.open(make_plan(tmp_path, toys()))
    assert not list(tmp_path.glob("*/*.tmp"))


def test_who_has_lost_the_job_does_not_say_in_its_index_that_it_rests(opened: list[job.Job], tmp_path: Path) -> None:
    for _ in range(2):
        job.Job.open(make_plan(tmp_path, toys()))
    first, second = opened
    first.rest()
    finish(second)
    assert (tmp_path / "out.bin").exists()


def test_who_still_has_the_job_says_so(opened: list[job.Job], tmp_path: Path) -> None:
    one = job.Job.open(make_plan(tmp_path, toys()))
    one.rest()
    found = Journal.open(one.plan.job_dir / "index.wal")
    assert found is not None
    assert found.header.state == CLEAN
    found.close()


def test_an_index_gets_its_name_where_there_are_no_hard_links(
    opened: list[job.Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_old: Path, _new: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    finish(job.Job.open(make_plan(tmp_path, toys())))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [".out.bin.streamconv", "out.bin"]


def test_looking_at_a_folder_again_leaves_no_file_open(
    opened: list[job.Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tmp_path, toys())
    job.Job.open(plan).close()
    before = len(os.listdir("/dev/fd"))

    def gone(_path: Path, *, create: bool, links: int = 1) -> int:
        raise files.NameInTheWay("gone")

    real = files.open_for_writing
    monkeypatch.setattr(
        files, "open_for_writing", lambda p, create, **_: (gone if p.suffix == ".part" else real)(p, create=create)
    )
    with pytest.raises(Locked, match="another process is working on this output"):
        job.Job.open(plan)
    assert len(os.listdir("/dev/fd")) == before


def test_an_output_that_another_job_of_the_same_plan_has_made_meanwhile_stays(
    opened: list[job.Job], tmp_path: Path
) -> None:
    late = job.Job.open(make_plan(tmp_path, toys()))
    aside = late.plan.job_dir.rename(tmp_path / "aside")  # out of its way
    go(make_plan(tmp_path, toys()))
    made = os.stat(tmp_path / "out.bin")
    aside.rename(late.plan.job_dir)
    with pytest.raises(Locked, match="has just written"):
        finish(late)
    late.close()
    assert os.path.samestat(os.stat(tmp_path / "out.bin"), made)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.bin.streamconv", "out.bin"]
