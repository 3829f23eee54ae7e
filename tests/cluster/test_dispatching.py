"""The protocol of workers, without a network: same bytes as threads make, whatever goes wrong."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fingerprint_cases as cases
import pytest
from ledger import Ledger
from pools import HerePool
from runs import Told, forget_jobs, fresh, outputs, through

from streamconv import conversion
from streamconv.cluster import board, worker
from streamconv.cluster.order import Order
from streamconv.conversion import Recipe
from streamconv.engine import files, journal, reading_back, run
from streamconv.engine.attaching import Attached, Stale, Token
from streamconv.engine.index_file import CommitRecord
from streamconv.engine.job import Job
from streamconv.errors import (
    BadInput,
    InputChanged,
    Interrupted,
    Locked,
    NetworkError,
    PlanDiffers,
    Stopped,
    StreamconvError,
    WriteFailed,
)
from streamconv.progress import Silent

CHUNK = 2 << 10
KINDS = ("dense_gguf", "ties_gguf", "extraction", "gemma_sbs", "dense_folder", "dare_folder", "gptq_gguf", "lora_gguf")
SLOW = KINDS[2:]
each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS]
)


def job_of(kind: str, root: Path) -> cases.Job:
    found: cases.Job = getattr(cases, kind)(root)
    return replace(found, options=replace(found.options, chunk_bytes=CHUNK, threads=1))


@each_kind
def test_workers_make_what_threads_make(tmp_path: Path, kind: str) -> None:
    job = job_of(kind, tmp_path)
    prepared, expected = fresh(job, job.options)
    outcome, pool = through(prepared, job.options)
    assert outputs(prepared) == expected
    assert outcome is not None
    assert outcome.made_bytes == prepared.plan.total_bytes
    assert [what for what in pool.done if "make" in what]


@each_kind
def test_the_bytes_are_the_same_whatever_becomes_of_workers(tmp_path: Path, kind: str, seed: int) -> None:
    job = job_of(kind, tmp_path)
    prepared, expected = fresh(job, job.options)
    _, pool = through(prepared, job.options, partial(HerePool, seed=seed))
    assert outputs(prepared) == expected
    assert {"dies", "dies late", "sleeps", "twice"} & set(pool.faults)
    late = pool.wake()
    assert all(answer.get("stale") for answer in late)
    assert outputs(prepared) == expected


def test_what_is_known_of_whole_tensors_is_measured_once(tmp_path: Path) -> None:
    job = job_of("ties_gguf", tmp_path)
    prepared, _ = fresh(job, job.options)
    _, pool = through(prepared, job.options)
    measured = [what["measure"] for what in pool.done if "measure" in what]
    looking = [item.number for item, _ in prepared.plan.items if item.looks]
    assert sorted(measured) == sorted(looking)
    assert looking


@pytest.mark.parametrize("then", ["threads", pytest.param("workers", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_is_resumed_with_or_without_workers(tmp_path: Path, then: str) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    calls = 0

    def few(order: str, task: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise Stopped("enough")
        return worker.carry_out(order, task)

    with pytest.raises(Stopped):
        through(prepared, job.options, partial(HerePool, carry_out=few))
    again = job.plan(job.options)
    outcome = conversion.execute(again, job.options, Silent()) if then == "threads" else through(again, job.options)[0]
    assert outcome is not None
    assert outcome.resumed_bytes > 0
    assert outputs(again) == expected


@pytest.mark.slow
def test_a_call_that_nobody_survives_is_halved_and_at_last_done_here(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)

    def deadly(order: str, task: Any) -> Any:
        return None if "make" in task and 3 in task["make"] else worker.carry_out(order, task)

    _, pool = through(prepared, job.options, partial(HerePool, carry_out=deadly))
    assert outputs(prepared) == expected
    sizes = [len(what["make"]) for what in pool.done if 3 in what.get("make", ())]
    assert sizes[-1] == 1
    assert len(sizes) >= board.TRIES


@pytest.mark.parametrize(
    "what", ["numba", *(pytest.param(what, marks=pytest.mark.slow) for what in ("kernels", "streamconv", "byte order"))]
)
def test_a_worker_of_another_version_is_refused(tmp_path: Path, what: str) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)

    def altered(order: Order) -> Order:
        return order._replace(versions={**order.versions, what: "0"})

    with pytest.raises(PlanDiffers, match=rf"worker \d+ on .*: .*{what}"):
        through(prepared, job.options, altered=altered)


def test_a_worker_that_sees_another_file_is_refused(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)

    def altered(order: Order) -> Order:
        return order._replace(inputs=[[name, size, time + 1, digest] for name, size, time, digest in order.inputs])

    with pytest.raises(PlanDiffers, match=r"model\.safetensors is another file"):
        through(prepared, job.options, altered=altered)


@pytest.mark.slow
def test_a_worker_that_makes_another_plan_is_refused(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)

    def altered(order: Order) -> Order:
        other = Recipe.of(order.recipe.to_json())
        return order._replace(recipe=replace(other, options=replace(other.options, model_name="other")))

    with pytest.raises(PlanDiffers, match="another plan"):
        through(prepared, job.options, altered=altered)


@pytest.mark.slow
def test_a_failed_write_of_a_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    real = files.pwrite_all

    def full(fd: int, data: Any, offset: int, path: Path) -> None:
        if path.suffix == ".part" and offset > 40000:
            raise WriteFailed("no space", "Free some.")
        real(fd, data, offset, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "pwrite_all", full)
        with pytest.raises(WriteFailed, match=r"worker \d+ on .*: no space"):
            through(prepared, job.options)
    forget_jobs()
    again = job.plan(job.options)
    conversion.execute(again, job.options, Silent())
    assert outputs(again) == expected


def test_a_change_of_an_input_is_noticed_by_workers(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)
    weights = tmp_path / "m" / "model.safetensors"

    def changing(order: str, task: Any) -> Any:
        answer = worker.carry_out(order, task)
        if weights.stat().st_mtime_ns != 1:
            with weights.open("r+b") as f:
                f.seek(-2, 2)
                f.write(b"xy")
            os.utime(weights, ns=(1, 1))
        return answer

    with pytest.raises(InputChanged):
        through(prepared, job.options, partial(HerePool, carry_out=changing))


@pytest.mark.slow
def test_after_a_change_of_an_input_no_old_worker_reaches_the_new_files(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)
    weights = tmp_path / "m" / "model.safetensors"
    kept: list[tuple[str, Any]] = []

    def few(order: str, task: Any) -> Any:
        kept.append((order, task))
        if len(kept) > 3:
            raise Stopped("enough")
        return worker.carry_out(order, task)

    with pytest.raises(Stopped):
        through(prepared, job.options, partial(HerePool, carry_out=few))
    part = prepared.plan.part_path(0)
    inode = part.stat().st_ino
    old = worker._sites[0]._attached  # a process that was stopped here still has the file open
    fd = os.dup(old._fds[0])
    data = bytearray(weights.read_bytes())
    data[-5000:] = bytes(5000)
    weights.write_bytes(data)
    options = replace(job.options, update=True)
    again = job.plan(options)
    conversion.execute(again, options, Silent())
    made = outputs(again)
    assert os.fstat(fd).st_ino == inode
    files.pwrite_all(fd, b"late" * 1000, 50000, part)
    os.close(fd)
    assert outputs(again) == made


@pytest.mark.slow
def test_what_is_not_in_the_file_as_it_was_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    real, hurt = journal.Journal.commit, []

    def commit(self: journal.Journal, commits: Any) -> None:
        listed = list(commits)
        real(self, listed)
        if not hurt:
            hurt.append(listed[0])
            path = prepared.plan.part_path(listed[0].file)
            with path.open("r+b") as f:
                f.seek(listed[0].offset)
                f.write(b"\0" * 16 + b"x")

    monkeypatch.setattr(journal.Journal, "commit", commit)
    told = Told()
    through(prepared, job.options, told=told)
    assert outputs(prepared) == expected
    assert any("made again" in text for text in told.texts)


def test_a_signal_ends_the_reading_back_and_no_worker_is_asked_for_when_all_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    real = run.damaged

    def signalled(plan: Any, made: Any, go_on: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(plan, made, go_on)

    monkeypatch.setattr(run, "damaged", signalled)
    with pytest.raises(Interrupted):
        through(prepared, job.options)

    def none(job: Job) -> Any:
        raise AssertionError("there is nothing to do for workers")

    again = job.plan(job.options)
    outcome = conversion.execute(again, job.options, Silent(), none)
    assert outcome is not None
    assert outcome.resumed_bytes > 0
    assert outputs(again) == expected


def test_what_workers_made_before_a_stop_is_read_back_by_the_next_run_in_any_case(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    opened = Job.open(prepared.plan)
    token = opened.share()
    attached = Attached(prepared.plan, token)
    chunk = prepared.plan.chunks()[0]
    attached.put(chunk.file, memoryview(bytes(chunk.length)), chunk.offset)
    attached.close()
    opened.commit(
        [CommitRecord(chunk.number, chunk.file, chunk.offset, chunk.length, chunk.stop - chunk.start, b"x" * 16)]
    )
    opened.rest()
    opened.close()
    again = job.plan(job.options)
    conversion.execute(again, replace(job.options, verify="recent"), Silent())
    assert outputs(again) == expected


@pytest.mark.slow
def test_what_never_gets_into_the_file_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)
    monkeypatch.setattr(run, "damaged", lambda plan, made, go_on: list(made)[:1])
    with pytest.raises(WriteFailed, match="after 3 attempts"):
        through(prepared, job.options)


def test_workers_that_do_not_see_the_job_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)

    def altered(order: Order) -> Order:
        return order._replace(token=Token(1, 1, order.token.fingerprint))

    with pytest.raises(NetworkError, match="do not see"):
        through(prepared, job.options, altered=altered)


def test_a_late_worker_opens_no_file_of_another_job(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    plan = job.plan(job.options).plan
    first = Job.open(plan)
    late = Attached(plan, first.share())
    first.close()
    second = Job.open(plan, discard=True)
    before = plan.part_path(0).read_bytes()
    with pytest.raises(Stale):
        late.put(0, memoryview(b"late"), 100)
    assert plan.part_path(0).read_bytes() == before
    second.discard()
    second.close()
    with pytest.raises(Stale):
        late.put(0, memoryview(b"late"), 100)


def test_a_worker_that_stops_measuring_by_itself_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("ties_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    measure, given_up = worker._Site.measure, list[int]()

    def first_gives_up(site: Any, number: int, known: Any) -> Any:
        if not given_up:
            given_up.append(number)
            raise Stopped("the read of these rows was cancelled")
        return measure(site, number, known)

    monkeypatch.setattr(worker._Site, "measure", first_gives_up)
    through(prepared, job.options)
    assert given_up
    assert outputs(prepared) == expected


def test_a_run_that_lost_its_job_stops_its_workers(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)
    index = prepared.plan.job_dir / "index.wal"

    def robbed(order: str, task: Any) -> Any:
        opened = journal.Journal.open(index)
        assert opened is not None
        opened.take_over()
        opened.close()
        return worker.carry_out(order, task)

    with pytest.raises(Locked):
        through(prepared, job.options, partial(HerePool, carry_out=robbed))


@pytest.mark.parametrize("other", ["has taken over", pytest.param("has published", marks=pytest.mark.slow)])
def test_a_coordinator_that_lost_its_job_between_its_last_look_and_a_commit_ends_and_has_harmed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """As one that was stopped there, where locks do nothing: what it commits is true."""
    monkeypatch.setattr(files, "lock_exclusively", lambda fd: True)
    monkeypatch.setattr(run, "_COMMIT_SECONDS", 0.0)
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    real, is_stopped = journal.Journal.commit, threading.Event()

    def commit(self: journal.Journal, commits: Any) -> None:
        if not is_stopped.is_set():
            is_stopped.set()
            second = job.plan(job.options)
            if other == "has published":
                conversion.execute(second, job.options, Silent())
            else:
                Job.open(second.plan).close()
        real(self, commits)

    monkeypatch.setattr(journal.Journal, "commit", commit)
    with pytest.raises(Locked):
        through(prepared, job.options)
    forget_jobs()
    if other == "has taken over":
        ledger = Ledger(tmp_path)
        ledger.look()
        assert ledger.committed
        assert ledger.wrong == 0
        again = job.plan(job.options)
        conversion.execute(again, job.options, Silent())
    assert outputs(prepared) == expected


@pytest.mark.parametrize("other", ["has taken over", "has published"])
def test_a_coordinator_that_lost_its_job_before_it_reads_back_says_so_and_makes_nothing_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(files, "lock_exclusively", lambda fd: True)
    job = job_of("dense_gguf", tmp_path)
    prepared, expected = fresh(job, job.options)
    real = run.damaged

    def damaged(plan: Any, made: Any, go_on: Any) -> Any:
        second = job.plan(job.options)
        if other == "has published":
            monkeypatch.setattr(run, "damaged", real)
            conversion.execute(second, job.options, Silent())
            return real(plan, made, go_on)
        Job.open(second.plan).close()
        return list(made)[:1]

    def forget(*_: Any) -> None:
        raise AssertionError("these slots are another's")

    monkeypatch.setattr(run, "damaged", damaged)
    monkeypatch.setattr(journal.Journal, "forget", forget)
    with pytest.raises(Locked):
        through(prepared, job.options)
    forget_jobs()
    if other == "has published":
        assert outputs(prepared) == expected


@pytest.mark.slow
def test_an_answer_about_other_chunks_is_refused(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)

    def mistaken(order: str, task: Any) -> Any:
        answer = worker.carry_out(order, task)
        return {**answer, "made": answer["made"][:-1]}

    with pytest.raises(StreamconvError, match="says that it made"):
        through(prepared, job.options, partial(HerePool, carry_out=mistaken))


@pytest.mark.slow
def test_values_that_are_refused_are_named_with_the_worker_that_met_them(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    weights = tmp_path / "m" / "model.safetensors"
    tensors = cases.read_safetensors(weights)
    name, (dtype, values) = next(iter(tensors.items()))
    values = values.copy()
    values.reshape(-1)[3] = 0x7F80 if values.dtype.kind == "u" else float("inf")
    cases.write_safetensors(weights, {**tensors, name: (dtype, values)})
    with pytest.raises(BadInput, match=r"worker \d+ on"):
        through(job.plan(job.options), job.options)


@pytest.mark.slow
def test_an_order_comes_out_as_it_went_in(tmp_path: Path) -> None:
    for kind in ("dense_gguf", "extraction"):
        job = job_of(kind, tmp_path / kind)
        options = replace(
            job.options, imatrix=(Path("a b"),), tensor_types=("x=Q8_0",), prune_layers=(1, 2), report=Path("r")
        )
        prepared = job.plan(job.options)
        assert prepared.recipe is not None
        prepared = replace(prepared, recipe=replace(prepared.recipe, options=options))
        order = Order.of(prepared, Token(1, 2, b"3" * 32))
        back = Order.read(order.text())
        assert back.recipe.options == replace(options, report=None, measure=True)
        assert back.token == order.token
        assert conversion.prepare_again(
            Recipe.of(replace(order.recipe, options=job.options).to_json())
        ).plan.fingerprint == (prepared.plan.fingerprint)


@pytest.mark.slow
def test_reading_back_tells_a_chunk_of_other_bytes(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)
    prepared = job.plan(job.options)
    seen: list[int] = []
    real = reading_back.damaged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "damaged", lambda plan, made, go_on: seen.append(len(made)) or real(plan, made))
        through(prepared, job.options)
    assert seen == [len(prepared.plan.chunks())]


def test_workers_go_to_the_folder_that_names_are_meant_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("dense_gguf", tmp_path)
    monkeypatch.chdir(tmp_path)
    prepared = conversion.prepare("m", "y.gguf", job.options)

    def elsewhere(order: str, task: Any) -> Any:
        if not worker._sites:
            gone = tmp_path / "gone"
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()
        return worker.carry_out(order, task)

    through(prepared, job.options, partial(HerePool, carry_out=elsewhere))
    assert (tmp_path / "y.gguf").exists()


def test_a_worker_that_does_not_see_the_folder_of_the_command_is_refused(tmp_path: Path) -> None:
    job = job_of("dense_gguf", tmp_path)

    def altered(order: Order) -> Order:
        return order._replace(recipe=replace(order.recipe, folder=str(tmp_path / "none")))

    with pytest.raises(PlanDiffers, match="the folder of the command"):
        through(job.plan(job.options), job.options, altered=altered)
