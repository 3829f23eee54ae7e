"""Chunks that an older output has already: copied, read back, committed as any other, and made where anything is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
from toy_jobs import Source, Toy, go, interrupted, make_plan, parted, toys

from streamconv.engine import copying, files, job, record, reusing, run
from streamconv.engine.budget import share
from streamconv.engine.index_file import read_progress
from streamconv.engine.journal import Journal
from streamconv.engine.plan import Item, Key, Plan
from streamconv.engine.record import load, record_path, sealed
from streamconv.engine.reusing import Donor, Reusable
from streamconv.errors import Interrupted, Stopped, StreamconvError, WriteFailed
from streamconv.progress import Silent

Patch = pytest.MonkeyPatch
SLOW = pytest.mark.slow


def keyed(plan: Plan, inputs: str = "untouched", other: Sequence[str] = (), nonfinite: bool = False) -> Plan:
    """``plan`` with keys by names and parts; the names in ``other`` have others than usual."""

    def key_of(item: Item, part: int) -> Key:
        return Key(f"T{part}", f"encoding {part}", f"{item.name}{' again' if item.name in other else ''}", inputs)

    return replace(plan, key_of=key_of, has_manifest=True, admits_nonfinite=not nonfinite)


def old(folder: Path, items: list[Toy] | None = None, **how: object) -> Donor:
    """A finished output with a manifest, of the ``toys``."""
    folder.mkdir()
    plan = keyed(make_plan(folder, items or toys(), tag="old", **how))  # type: ignore[arg-type]
    go(plan)
    found = load(record_path(plan.output))
    assert found is not None
    return Donor(plan.output, found)


def reuse(plan: Plan, donors: Sequence[Donor], threads: int = 2, stop: run.StopRequest | None = None) -> Reusable:
    """Copy what ``donors`` have of ``plan``, and make the rest."""
    found, stop = reusing.find(plan, donors), stop or run.StopRequest()
    opened = job.Job.open(plan)
    try:
        budget = replace(share(1 << 24, threads, 64, 128), window_bytes=500)
        reusing.copy(opened, found, budget, Silent(), stop)
        run.run(opened, budget, Silent(), stop)
    finally:
        opened.close()
    return found


def made(plan: Plan) -> dict[str, int]:
    """How many rows were made, by tensor."""
    items = {p.item.number: p.item for p in plan.placements}.values()
    return {item.name: len(item.made) for item in items if isinstance(item, Toy) and item.made}


def committed(plan: Plan) -> list[int]:
    found = read_progress(plan.job_dir / "index.wal")
    return [] if found is None else [s.chunk for s in found.commits]


def bytes_of(plan: Plan) -> list[bytes]:
    return [f.path.read_bytes() for f in plan.files]


def fresh(folder: Path, items: list[Toy], **how: object) -> list[bytes]:
    folder.mkdir()
    plan = make_plan(folder, items, **how)  # type: ignore[arg-type]
    go(plan)
    return bytes_of(plan)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_an_older_output_has_is_copied_and_only_the_rest_is_made(tmp_path: Path, threads: int) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()), other=["b"])
    found = reuse(plan, [donor], threads)
    assert made(plan) == {"b": 7}
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())
    assert (found.n_bytes, found.donors) == (40 * 64 + 33 * 100, [donor.output])
    assert found.told() == [
        f"1 tensors are not copied from {donor.output}: 1 are made of other inputs, in another way, or by another version"
    ]
    assert found.told_of_missed() == []


@pytest.mark.parametrize(
    "chunk_bytes", [64, 300, 1000, *(pytest.param(n, marks=SLOW) for n in (100, 200, 320, 448, 1 << 20))]
)
def test_an_older_output_that_was_cut_into_other_chunks_serves_as_well(tmp_path: Path, chunk_bytes: int) -> None:
    donor = old(tmp_path / "old")
    plan = replace(keyed(make_plan(tmp_path, toys())), chunk_bytes=chunk_bytes)
    found = reuse(plan, [donor])
    assert (made(plan), found.told_of_missed()) == ({}, [])
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


def test_tensors_are_known_by_what_they_are_made_of_whatever_they_are_called_and_wherever_they_lie(
    tmp_path: Path,
) -> None:
    donor = old(tmp_path / "old", toys()[::-1], n_files=2)
    plan = keyed(make_plan(tmp_path, toys(), n_files=3))
    reuse(plan, [donor])
    assert made(plan) == {}
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys(), n_files=3)


def test_parts_of_an_item_are_copied_one_by_one_and_the_others_are_made(tmp_path: Path) -> None:
    donor = old(tmp_path / "old", [Toy("a", 40, 64), Toy("b", 7, 128)])
    plan = keyed(make_plan(tmp_path, parted(), n_files=2))
    reuse(plan, [donor])
    assert made(plan) == {"a": 40, "c": 33}
    assert bytes_of(plan) == fresh(tmp_path / "fresh", parted(), n_files=2)


def test_of_several_older_outputs_each_gives_what_it_has(tmp_path: Path) -> None:
    a, b, c = toys()
    donors = [old(tmp_path / "one", [a]), old(tmp_path / "two", [b, c])]
    plan = keyed(make_plan(tmp_path, toys()))
    found = reuse(plan, donors)
    assert made(plan) == {}
    assert found.donors == [donor.output for donor in donors]


def test_a_damaged_range_is_made_again_and_told_and_the_rest_is_copied(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    (file,) = donor.record.files
    hit = file.ranges[3]
    data = bytearray(donor.output.read_bytes())
    data[hit.offset + 17] ^= 1
    donor.output.write_bytes(data)
    for threads in (1, 2):
        folder = tmp_path / str(threads)
        folder.mkdir()
        plan = keyed(make_plan(folder, toys()))
        found = reuse(plan, [donor], threads)
        assert made(plan) == {hit.tensor: hit.length // 64}
        assert bytes_of(plan) == fresh(tmp_path / f"fresh {threads}", toys())
        assert found.told_of_missed() == [
            f"1 tensors are made, in whole or in part, instead of copied from {donor.output}: 1 are not there as its record says"
        ]


def cut(path: Path) -> None:
    os.truncate(path, 2000)


def gone(path: Path) -> None:
    path.unlink()


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def another(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [cut, gone, linked, another, a_pipe])
@pytest.mark.parametrize("chunk_bytes", [256, pytest.param(300, marks=SLOW)])
def test_an_older_output_that_is_not_what_its_record_says_gives_nothing_wrong(
    tmp_path: Path, harm: Callable[[Path], None], chunk_bytes: int
) -> None:
    donor = old(tmp_path / "old")
    harm(donor.output)
    plan = replace(keyed(make_plan(tmp_path, toys())), chunk_bytes=chunk_bytes)
    found = reuse(plan, [donor])
    assert len(found.told_of_missed()) == 1
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


def test_an_older_output_that_is_written_to_while_it_is_copied_gives_nothing_wrong(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    donor, real = old(tmp_path / "old"), copying.copy_range

    def racing(source: int, start: int, fd: int, offset: int, length: int, path: Path) -> int:
        with donor.output.open("r+b") as f:
            f.seek(start)
            f.write(b"changed")
        return real(source, start, fd, offset, length, path)

    monkeypatch.setattr(reusing, "copy_range", racing)
    plan = keyed(make_plan(tmp_path, toys()))
    reuse(plan, [donor])
    assert sum(made(plan).values()) == 80
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


def sourced(folder: Path, contents: bytes) -> list[Toy]:
    source = folder / "in.bin"
    source.write_bytes(contents)
    found = toys()
    for toy in found:
        toy.source = Source(source)
    return found


@pytest.mark.parametrize("whole", [False, True])
def test_of_inputs_with_other_times_the_contents_decide_chunk_by_chunk(tmp_path: Path, whole: bool) -> None:
    contents = bytes(range(40))
    donor = old(tmp_path / "old", sourced(tmp_path, contents))
    same = keyed(make_plan(tmp_path, sourced(tmp_path, contents)), inputs="touched")
    reuse(same, [donor])
    assert made(same) == {}

    other = tmp_path / "other"
    other.mkdir()
    items = sourced(tmp_path, contents[:33] + b"\xff" + contents[34:])  # what "a" alone has a row of
    if whole:
        for toy in items:
            toy.everything = lambda toy=toy: toy.spans(0, toy.n_rows)  # type: ignore[method-assign]
    plan = keyed(make_plan(other, items), inputs="touched")
    found = reuse(plan, [donor])
    assert made(plan) == {"a": 4}, "the rows of its chunk"
    assert "1 are made of inputs that have changed" in found.told_of_missed()[0]


def test_rows_that_are_made_as_fast_as_they_are_compared_are_made(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Toy, "is_quick", True)
    contents = bytes(range(40))
    donor = old(tmp_path / "old", sourced(tmp_path, contents))
    plan = keyed(make_plan(tmp_path, sourced(tmp_path, contents)), inputs="touched")
    reuse(plan, [donor])
    assert made(plan) == {"a": 40, "b": 7, "c": 33}


@pytest.mark.parametrize("after", [1, 4, *(pytest.param(n, marks=SLOW) for n in (2, 3, 5, 6, 7))])
def test_a_run_that_dies_while_it_copies_is_finished_with_or_without_the_older_output(
    tmp_path: Path, monkeypatch: Patch, after: int
) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()), other=["b"])
    calls, real = iter(range(10**9)), job.Job.commit

    def dying(self: job.Job, group: list) -> None:  # type: ignore[type-arg]
        if next(calls) == after:
            raise MemoryError
        real(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "commit", dying)
        with pytest.raises(MemoryError):
            reuse(plan, [donor])
    assert committed(plan)
    if after % 2:
        donor.output.unlink()
        go(plan)
    else:
        reuse(plan, [donor])
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


def test_a_job_that_began_without_an_older_output_goes_on_with_one(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()))
    interrupted(plan, 20)
    begun = committed(plan)
    assert begun
    reuse(plan, [donor])
    assert made(plan) == {}
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


def test_copies_are_durable_before_they_are_committed(tmp_path: Path, monkeypatch: Patch) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()))
    written, synced, commits = set[int](), set[int](), 0
    copy_range, sync_data, commit = copying.copy_range, files.sync_data, Journal.commit

    def copied(source: int, start: int, fd: int, offset: int, length: int, path: Path) -> int:
        written.add(offset)
        return copy_range(source, start, fd, offset, length, path)

    def sync(fd: int, path: Path, mapping: object = None) -> None:
        there = set(written)
        sync_data(fd, path, mapping)
        if path.suffix == ".part":
            synced.update(there)

    def stamped(self: Journal, group: list) -> None:  # type: ignore[type-arg]
        nonlocal commits
        commits += 1
        assert {s.offset for s in group} <= synced
        commit(self, group)

    monkeypatch.setattr(reusing, "copy_range", copied)
    monkeypatch.setattr(files, "sync_data", sync)
    monkeypatch.setattr(Journal, "commit", stamped)
    reuse(plan, [donor], threads=3)
    assert commits > 3
    assert made(plan) == {}


def test_nothing_is_committed_after_a_write_that_failed(tmp_path: Path, monkeypatch: Patch) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()))

    def full(*_: object) -> int:
        raise WriteFailed("no space")

    monkeypatch.setattr(reusing, "copy_range", full)
    with pytest.raises(WriteFailed):
        reuse(plan, [donor])
    assert not committed(plan)


def test_tensors_with_nan_are_made_so_that_they_are_counted_or_refused(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    (file,) = donor.record.files
    tensors = tuple(t._replace(nonfinite=3) if t.name == "c" else t for t in file.tensors)
    donor = donor._replace(record=replace(donor.record, files=[replace(file, tensors=tensors)]))
    plan = keyed(make_plan(tmp_path, toys()))
    found = reuse(plan, [donor])
    assert made(plan) == {"c": 33}
    assert "1 have NaN or Inf" in found.told()[0]


def test_short_runs_get_on_with_and_without_anything_to_copy(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    for name in ("copied", "made"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "made":
            donor.output.unlink()
        plan = replace(keyed(make_plan(folder, toys())), chunk_bytes=1000)
        runs = 0
        while not plan.output.exists():
            runs += 1
            assert runs < 60
            with suppress(Stopped):
                reuse(plan, [donor], threads=1, stop=run.StopRequest(0.0))
        assert bytes_of(plan) == fresh(tmp_path / f"fresh {name}", toys())


def test_a_signal_ends_copying_in_order(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    plan = keyed(make_plan(tmp_path, toys()))
    stop = run.StopRequest()
    stop.signum = 15
    with pytest.raises(Interrupted):
        reuse(plan, [donor], stop=stop)
    reuse(plan, [donor])
    assert made(plan) == {}


# The manifest.


def test_a_manifest_has_the_digest_of_every_tensor_and_survives_being_stored(tmp_path: Path) -> None:
    donor = old(tmp_path / "old")
    (file,) = donor.record.files
    data = donor.output.read_bytes()
    assert [t.name for t in file.tensors] == ["a", "b", "c"]
    for t in file.tensors:
        assert t.digest == xxhash.xxh3_128_hexdigest(data[t.offset : t.offset + t.length])
        assert sum(r.length for r in file.ranges if r.tensor == t.name) == t.length
    assert donor.record == load(record_path(donor.output))


def test_without_a_manifest_the_record_is_as_it_was(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, toys())
    go(plan)
    assert "tensors" not in record_path(plan.output).read_text()
    found = load(record_path(plan.output))
    assert found is not None
    assert reusing.find(keyed(plan), [Donor(plan.output, found)]).sources == {}


@pytest.mark.parametrize(
    "wrong",
    [
        ["a", -1, 10, "", 0, "", "", "", ""],
        ["a", 64, 1 << 40, "", 0, "", "", "", ""],
        ["a", 64, 10, "", 0, ""],
        7,
        ["a", "x"],
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_makes_the_record_none(tmp_path: Path, wrong: object) -> None:
    donor = old(tmp_path / "old")
    path = record_path(donor.output)
    facts = json.loads(path.read_text().splitlines()[0])
    facts["files"][0]["tensors"][0] = wrong
    path.write_text(sealed(facts))
    assert record.load(path) is None


def test_what_the_disk_does_not_have_any_more_is_seen_before_it_goes_on_record(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    plan, real = keyed(make_plan(tmp_path, toys())), job.Job.publish

    def rotten(self: job.Job) -> None:
        os.pwrite(self.part_fds[0], b"rot", 1000)
        real(self)

    monkeypatch.setattr(job.Job, "publish", rotten)
    with pytest.raises(WriteFailed, match="tensor a"):
        go(plan)
    assert not plan.output.exists()
    monkeypatch.undo()
    go(plan)
    assert made(plan)["a"] == 44, "the chunk of it is made again"
    assert bytes_of(plan) == fresh(tmp_path / "fresh", toys())


# Copies.


def _unsupported(*_: object) -> int:
    raise OSError(18, "cross-device link")


@pytest.mark.parametrize("way", ["kernel", "unsupported", "absent", "short"])
@pytest.mark.parametrize(("start", "offset"), [(0, 0), (1, 7), (5000, 904), (904, 9096), (4096, 8192)])
def test_a_range_is_copied_whatever_the_system_can_do(
    tmp_path: Path, monkeypatch: Patch, way: str, start: int, offset: int
) -> None:
    data = os.urandom(1 << 20)
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(bytes(1 << 21))
    if way == "unsupported":
        monkeypatch.setattr(os, "copy_file_range", _unsupported)
    elif way == "absent":
        monkeypatch.delattr(os, "copy_file_range")
    elif way == "short":
        real = os.copy_file_range
        monkeypatch.setattr(os, "copy_file_range", lambda a, b, n, *at: real(a, b, min(n, 1000), *at))
    a, b = os.open(tmp_path / "a", os.O_RDONLY), os.open(tmp_path / "b", os.O_RDWR)
    try:
        assert copying.copy_range(a, start, b, offset, 600_001, tmp_path / "b") == 600_001
        there = (tmp_path / "b").read_bytes()
        assert there == bytes(offset) + data[start : start + 600_001] + bytes((1 << 21) - offset - 600_001)
        left = len(data) - start
        assert copying.copy_range(a, start, b, offset, 1 << 21, tmp_path / "b") == left, "no more than there is"
    finally:
        os.close(a)
        os.close(b)


def test_a_copy_that_cannot_be_written_is_an_error_and_one_that_cannot_be_read_is_none(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "a").write_bytes(bytes(9000))
    a, b = os.open(tmp_path / "a", os.O_RDONLY), os.open(tmp_path / "a", os.O_RDONLY)

    def broken(*_: object) -> bytes:
        raise OSError(5, "input/output error")

    try:
        with pytest.raises(StreamconvError) as caught:
            copying.copy_range(a, 0, b, 0, 9000, tmp_path / "b")
        assert isinstance(caught.value, WriteFailed)
        monkeypatch.setattr(os, "copy_file_range", broken)
        monkeypatch.setattr(os, "pread", broken)
        assert copying.copy_range(a, 0, b, 0, 9000, tmp_path / "b") == 0
    finally:
        os.close(a)
        os.close(b)
