"""Outputs that one plan made twice, from inputs with other contents in between: same headers, other bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from toy_jobs import Source, Toy, go, make_plan

from streamconv.engine import existing, files, job, publishing
from streamconv.engine.existing import look
from streamconv.engine.plan import Plan
from streamconv.engine.record import load, record_path
from streamconv.errors import CannotCreate, InputChanged
from streamconv.rows import Bytes, Floats, Quality


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class Copied(Toy):
    """Rows that hold nothing but the byte of the source that they are made from."""

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        made = super().fill(start, stop, outs, scratch)
        assert self.source is not None
        for out in outs:
            if out is not None:
                out[...] = self.source.view(start, stop - start)[:, None]
        return made


def plan_of(folder: Path, content: bytes, mtime_ns: int, n_files: int = 3, quick: bool = False) -> Plan:
    """A plan over ``in.bin``, whose fingerprint is the same whatever is in it."""
    (folder / "in.bin").write_bytes(content)
    toys = [Copied("a"), Copied("b", 7), Copied("c", 33, 100)]
    for toy in toys:
        toy.source, toy.is_quick = Source(folder / "in.bin"), quick
    return make_plan(folder, toys, n_files=n_files, mtime_ns=mtime_ns)  # type: ignore[arg-type]


def bytes_of(plan: Plan) -> list[bytes]:
    return [f.path.read_bytes() for f in plan.files]


BEFORE, AFTER = bytes(range(40)), bytes(range(100, 140))


@pytest.fixture
def right(tmp_path: Path) -> list[bytes]:
    """What the later contents give."""
    (tmp_path / "fresh").mkdir()
    plan = plan_of(tmp_path / "fresh", AFTER, 2)
    go(plan)
    return bytes_of(plan)


def killed(monkeypatch: pytest.MonkeyPatch, plan: Plan, where: str, after: int, **flags: bool) -> None:
    """Run ``plan`` until the step ``where`` was taken ``after`` times."""
    module = publishing if hasattr(publishing, where) else files
    real, calls = getattr(module, where), list[int]()

    def step(*args: object) -> object:
        if len(calls) == after:
            raise Killed
        calls.append(1)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, step)
        with pytest.raises(Killed):
            go(plan, **flags)


def is_in_order(plan: Plan) -> None:
    """Nothing of the job is left, and the record is that of the files."""
    assert not plan.job_dir.exists()
    record = load(record_path(plan.output))
    assert record is not None
    assert all(file.is_at(path) for path, file in record.paths(plan.output.parent))
    assert list(record.inputs) == list(plan.inputs)


@pytest.mark.parametrize("quick", [False, True])
def test_a_finished_output_of_other_contents_is_refused_and_replaced_when_asked(
    tmp_path: Path, right: list[bytes], quick: bool
) -> None:
    go(plan_of(tmp_path, BEFORE, 1, quick=quick))
    assert look(plan_of(tmp_path, BEFORE, 2, quick=quick)).complete
    plan = plan_of(tmp_path, AFTER, 2, quick=quick)
    with pytest.raises(CannotCreate, match="was made from different contents of tensor a"):
        look(plan).refuse()
    go(plan, update=True)
    assert bytes_of(plan) == right
    is_in_order(plan)


def test_an_old_output_of_the_same_plan_is_not_taken_for_what_a_killed_run_placed(
    tmp_path: Path, right: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    go(plan_of(tmp_path, BEFORE, 1))
    killed(monkeypatch, plan_of(tmp_path, AFTER, 2), "write_records", 0, update=True)
    plan = plan_of(tmp_path, AFTER, 2)
    go(plan, update=True)
    assert bytes_of(plan) == right
    is_in_order(plan)


@pytest.mark.parametrize("n_names", [1, 2])
def test_a_set_that_is_replaced_in_two_runs_has_a_record_of_all_its_files(
    tmp_path: Path, right: list[bytes], monkeypatch: pytest.MonkeyPatch, n_names: int
) -> None:
    go(plan_of(tmp_path, BEFORE, 1))
    killed(monkeypatch, plan_of(tmp_path, AFTER, 2), "_give", n_names, update=True)
    plan = plan_of(tmp_path, AFTER, 2)
    go(plan, update=True)
    assert bytes_of(plan) == right
    is_in_order(plan)


@pytest.mark.parametrize("step", ["publish_new", "recover"])
def test_an_input_that_changes_while_names_are_given_is_noticed(
    tmp_path: Path, right: list[bytes], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    killed(monkeypatch, plan_of(tmp_path, BEFORE, 1), step, 3 if step == "publish_new" else 1)
    plan = plan_of(tmp_path, AFTER, 2)
    with pytest.raises(InputChanged):
        go(plan)
    go(plan, update=True)
    assert bytes_of(plan) == right
    is_in_order(plan)


def test_files_of_a_run_that_is_given_up_do_not_stay_beside_the_set_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(monkeypatch, plan_of(tmp_path, BEFORE, 1), "publish_new", 3)
    assert [p.name for p in tmp_path.glob("out?.bin")] != []
    other = make_plan(tmp_path, [Toy("x")], "other")
    go(other, update=True)
    assert [p.name for p in sorted(tmp_path.glob("out*"))] == ["out.bin"]


def test_an_output_that_was_copied_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, BEFORE, 1)
    go(plan)
    read: list[Path] = []
    real: Callable[..., object] = existing.first_damage
    monkeypatch.setattr(existing, "first_damage", lambda path, record: read.append(path) or real(path, record))
    for f in plan.files:
        os.utime(f.path, ns=(1, 1))
    doubtful = look(plan, thorough=False)
    assert (doubtful.complete, len(doubtful.undecided), read) == (False, 3, [])
    doubtful.refuse()
    found = look(plan)
    assert (found.complete, len(read)) == (True, 3)
    job.renew(plan, found)
    assert (look(plan).complete, len(read)) == (True, 3)
    is_in_order(plan)


@pytest.mark.parametrize(
    ("call", "nth"),
    [("pwrite_all", 0), ("pwrite_all", 1), ("publish", 0), ("publish", 1), ("remove_file", 0), ("sync_dir", 1)],
)
def test_a_kill_while_new_times_are_remembered_leaves_nothing_that_the_next_run_does_not_remove(
    tmp_path: Path, call: str, nth: int
) -> None:
    plan = plan_of(tmp_path, BEFORE, 1)
    go(plan)
    names = sorted(tmp_path.iterdir())
    for f in plan.files:
        os.utime(f.path, ns=(1, 1))
    real, calls = getattr(files, call), list[int]()

    def step(*args: object) -> object:
        if len(calls) == nth:
            os._exit(0)
        calls.append(1)
        return real(*args)

    if (pid := os.fork()) == 0:
        setattr(files, call, step)
        job.renew(plan, look(plan))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    job.leftover(plan)
    job.renew(plan, look(plan))
    assert sorted(tmp_path.iterdir()) == names
    assert look(plan, thorough=False).complete


def test_an_output_of_other_contents_under_the_size_and_time_of_the_right_one_is_met_where_it_was_not_copied_so(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path, BEFORE, 1)
    go(plan)
    data = bytearray(plan.files[1].path.read_bytes())
    data[-1] ^= 1
    plan.files[1].path.write_bytes(data)
    with pytest.raises(CannotCreate, match=r"out1\.bin was modified after it was written"):
        look(plan).refuse(update=True)
