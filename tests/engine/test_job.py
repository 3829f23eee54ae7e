"""Whole jobs over toy items: what resuming keeps, refuses and makes again, and what errors leave behind."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_journal import of_version
from toy_jobs import Source, Toy, go, interrupted, make_plan, parted, toys

from streamconv.engine import files, job, run
from streamconv.engine.budget import share
from streamconv.engine.index_file import read_progress
from streamconv.engine.journal import Journal
from streamconv.engine.plan import Plan
from streamconv.errors import CannotCreate, InputChanged, PlanDiffers, Stopped, StreamconvError, WriteFailed
from streamconv.progress import Silent
from streamconv.rows import Bytes, Floats, Quality


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
    with pytest.raises(PlanDiffers, match="format 2, this version reads 1"):
        go(plan)
    (tmp_path / "out.bin").write_bytes(expected)  # finished otherwise: even then it is not ours to remove
    job.leftover(plan)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in plan.job_dir.iterdir()} == before
    go(plan, force=True)
    assert (tmp_path / "out.bin").read_bytes() == expected


def _made_of(path: Path, mtime_ns: int, content: bytes | None = None, whole: bool = False) -> Plan:
    """A plan of which row r of every toy is made from byte r of ``in.bin``, which was looked at when it had this time."""
    source = path / "in.bin"
    if content is not None:
        source.write_bytes(content)
    found = [Toy("a"), Toy("b", 7), Toy("c", 33, 100)]
    for toy in found:
        toy.source, toy.whole = Source(source), whole
    return make_plan(path, found, mtime_ns=mtime_ns)


_BEFORE = bytes(range(40))


def test_an_input_that_was_only_touched_costs_nothing(tmp_path: Path, expected: bytes) -> None:
    interrupted(_made_of(tmp_path, 1, _BEFORE), 50)
    outcome = go(_made_of(tmp_path, 2))
    assert outcome.resumed_bytes > 0
    assert outcome.notes == ["inputs have different times or locations than before, but the same contents"]
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_contents_are_compared_once_and_then_known_under_the_new_times(tmp_path: Path) -> None:
    interrupted(_made_of(tmp_path, 1, _BEFORE), 50)
    job.Job.open(_made_of(tmp_path, 2)).close()
    assert '"mtime_ns": 2' in (tmp_path / "out.bin.streamconv" / "plan.json").read_text()
    assert go(_made_of(tmp_path, 2)).notes == []


@pytest.mark.parametrize("lost_plan", [False, True])
def test_a_changed_input_is_refused_and_the_job_stays(tmp_path: Path, lost_plan: bool) -> None:
    plan = _made_of(tmp_path, 1, _BEFORE)
    interrupted(plan, 50)
    if lost_plan:
        (plan.job_dir / "plan.json").unlink()
    commits = read_progress(plan.job_dir / "index.wal")
    with pytest.raises(InputChanged, match=r"in\.bin was changed after .* \(tensor a\)") as caught:
        go(_made_of(tmp_path, 2, b"x" + _BEFORE[1:]))
    assert caught.value.exit_code == 65
    assert read_progress(plan.job_dir / "index.wal").commits == commits.commits  # type: ignore[union-attr]
    go(_made_of(tmp_path, 3, _BEFORE))


def test_an_update_keeps_what_was_made_of_bytes_that_did_not_change(tmp_path: Path, expected: bytes) -> None:
    interrupted(_made_of(tmp_path, 1, _BEFORE), 60)
    outcome = go(_made_of(tmp_path, 2, _BEFORE[:39] + b"x"), update=True)
    assert outcome.resumed_bytes > 0
    assert any("were changed since" in note and "(a)" in note for note in outcome.notes)
    assert (tmp_path / "out.bin").read_bytes() == expected


@pytest.mark.parametrize("changed", [False, True])
def test_rows_that_depend_on_a_whole_tensor_are_kept_only_where_all_of_it_is_the_same(
    tmp_path: Path, changed: bool
) -> None:
    interrupted(_made_of(tmp_path, 1, _BEFORE, whole=True), 60)
    after = _BEFORE[:39] + b"x" if changed else _BEFORE  # row 39 of tensor a, which decides all of it
    plan = _made_of(tmp_path, 2, after, whole=True)
    go(plan, update=True)
    made = {p.item.name: len(p.item.made) for p in plan.placements}  # type: ignore[attr-defined]
    assert made == {"a": 40 if changed else 0, "b": 0, "c": 21}, "c has not so many rows"


def test_what_was_stamped_without_a_digest_of_its_source_is_made_again_to_compare(tmp_path: Path) -> None:
    for toys_ in (toys(), [Toy("a"), Toy("b", 7), Other("c", 33, 100)]):
        plan = make_plan(tmp_path, toys())
        interrupted(plan, 60)
        index = Journal.open(plan.job_dir / "index.wal")
        assert index is not None
        index.commit([replace(s, source=bytes(16)) for s in index.commits()])
        index.close()
        again = make_plan(tmp_path, toys_, mtime_ns=2)
        if isinstance(toys_[2], Other):
            with pytest.raises(InputChanged, match=r"was changed after .* \(tensor c\)"):
                go(again)
            assert go(again, update=True).resumed_bytes == 40 * 64 + 7 * 64
        else:
            assert go(again).resumed_bytes == 40 * 64 + 7 * 64 + 12 * 100
        (tmp_path / "out.bin").unlink()


class Other(Toy):
    """Gives other bytes than a toy of its name."""

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        made = super().fill(start, stop, outs, scratch)
        for out in outs:
            if out is not None:
                out[:, 0] ^= 1
        return made


def test_a_plan_that_rotted_accuses_no_input(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    interrupted(plan, 50)
    text = (plan.job_dir / "plan.json").read_text()
    (plan.job_dir / "plan.json").write_text(text.replace('"mtime_ns": 1', '"mtime_ns": 3'))
    assert go(plan).resumed_bytes > 0


def test_an_input_whose_contents_changed_under_the_same_times_is_met_before_the_output_gets_its_name(
    tmp_path: Path,
) -> None:
    plan = _made_of(tmp_path, 1, _BEFORE)
    object.__setattr__(plan, "verify_inputs", lambda: (tmp_path / "in.bin").read_bytes() != _BEFORE)
    opened = job.Job.open(plan)
    (tmp_path / "in.bin").write_bytes(_BEFORE)
    last = plan.placements[-1].item
    assert isinstance(last, Toy)
    last.hook = lambda row: (tmp_path / "in.bin").write_bytes(b"x" + _BEFORE[1:]) and None if row == 32 else None
    with pytest.raises(InputChanged, match="tensor a changed while"):
        run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest())
    opened.close()
    assert not plan.output.exists()


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
    assert list(opened.journal.commits()) == []
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
    committed = {s.chunk for s in opened.journal.commits()}
    assert chunk not in opened.done
    assert opened.done.keys() == committed
    assert opened.notes == ["1 finished chunks contain NaN or Inf, which were allowed then; they are computed again"]
    opened.close()
    assert go(plan).quality["a", 0].nonfinite == 1
    assert (tmp_path / "out.bin").read_bytes() == expected


def test_the_output_folder_must_exist_and_the_disk_must_be_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotCreate, match="is not a folder"):
        job.preflight(make_plan(tmp_path / "nowhere", toys()))
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    with pytest.raises(WriteFailed, match="for the output, 67,108,864 in reserve\\), 1,000 are free"):
        job.preflight(make_plan(tmp_path, toys()))


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
