"""Threads that get no memory, that cannot be started, or that die without a word: the run ends, says so, and can go on."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_jobs import go, make_plan, toys

from streamconv import errors, threads
from streamconv.engine import job, makers, making, run
from streamconv.engine.budget import share
from streamconv.engine.existing import look
from streamconv.engine.plan import Plan
from streamconv.errors import Interrupted, Locked, NoResources, StreamconvError
from streamconv.progress import Silent

_SOON_SECONDS = 20.0
Patch = pytest.MonkeyPatch


def ends(plan: Plan, n_threads: int = 3) -> BaseException | None:
    """What a run of ``plan`` in a thread of its own raises; fails the test when it does not end."""
    found: list[BaseException | None] = []

    def body() -> None:
        try:
            go(plan, threads=n_threads)
            found.append(None)
        except BaseException as e:
            found.append(e)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(_SOON_SECONDS)
    assert found, "the run hangs"
    return found[0]


def goes_on(plan: Plan, patch: Patch) -> None:
    """Without the fault the same job is finished; its lock was given back."""
    patch.undo()
    go(plan)
    assert look(plan).complete


@pytest.mark.parametrize("failing", [{0}, {1, 2}, {0, 1, 2, 3, 4, 5}])
def test_a_worker_without_memory_for_its_buffers_ends_the_run(
    tmp_path: Path, monkeypatch: Patch, failing: set[int]
) -> None:
    plan, real, calls = make_plan(tmp_path, toys()), np.empty, iter(range(10**9))

    def empty(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and next(calls) in failing:
            raise MemoryError("Unable to allocate 4.00 MiB for an array")
        return real(*args, **kwargs)

    monkeypatch.setattr(making.np, "empty", empty)
    ended = ends(plan)
    assert isinstance(ended, NoResources), ended
    assert "not enough memory (Unable to allocate 4.00 MiB" in ended.message
    assert "--threads" in ended.hint
    goes_on(plan, monkeypatch)


@pytest.mark.parametrize("granted", [0, 1, 2, 3])
def test_a_system_that_grants_too_few_threads_is_an_error_that_leaves_none_behind(
    tmp_path: Path, monkeypatch: Patch, granted: int
) -> None:
    plan, real, begun = make_plan(tmp_path, toys()), threads.Thread.start, []

    def start(self: threads.Thread) -> None:
        with monkeypatch.context() as patch:
            if len(begun) == granted:
                patch.setattr(_thread, "start_new_thread", _refuse)
            begun.append(self)
            real(self)

    monkeypatch.setattr(threads.Thread, "start", start)
    with pytest.raises(NoResources, match=f"allows only {granted} of 4 threads") as caught:
        go(plan, threads=3)
    assert "--threads 1" in caught.value.hint
    assert not any(t.is_alive() for t in begun)
    goes_on(plan, monkeypatch)


def _refuse(*_: object) -> int:
    raise RuntimeError("can't start new thread")


def _stillborn(numbers: set[int]) -> Callable[..., int]:
    """``start_new_thread`` whose threads of these numbers die before their first line, as without memory for a frame."""
    real, count = _thread.start_new_thread, iter(range(10**9))
    return lambda body, args: real((lambda *_: None) if next(count) in numbers else body, args)


@pytest.mark.parametrize("dead", [{0}, {2}, {3}, {0, 1, 2}, {0, 1, 2, 3}], ids=str)
def test_a_thread_that_dies_before_its_first_line_is_noticed(
    tmp_path: Path, monkeypatch: Patch, dead: set[int]
) -> None:
    plan = make_plan(tmp_path, toys())
    with monkeypatch.context() as patch:
        patch.setattr(threads._thread, "start_new_thread", _stillborn(dead))
        with pytest.raises(NoResources, match="ended before it started"):
            go(plan, threads=3)
    goes_on(plan, monkeypatch)


@pytest.mark.parametrize("method", ["work", "commit"])
@pytest.mark.parametrize("failing", ["nothing else", "fail", "_notify", "both"])
def test_a_thread_that_cannot_even_say_that_it_dies_is_noticed(
    tmp_path: Path, monkeypatch: Patch, method: str, failing: str
) -> None:
    def dying(self: object, *_: object) -> None:
        raise MemoryError

    plan = make_plan(tmp_path, toys())
    if method == "work":
        monkeypatch.setattr(makers._Worker, "_take", dying)
    else:
        monkeypatch.setattr(run._Run, "_commit", dying)
    for name in ("fail", "_notify"):
        if failing in (name, "both"):
            monkeypatch.setattr(run._Run, name, dying)
    assert isinstance(ends(plan), NoResources)
    goes_on(plan, monkeypatch)


def test_whoever_watches_the_threads_may_lack_memory_too(tmp_path: Path, monkeypatch: Patch) -> None:
    def dying(self: object, *_: object) -> None:
        raise MemoryError

    plan = make_plan(tmp_path, toys())
    for toy in (p.item for p in plan.placements):
        toy.hook = lambda row: time.sleep(0.01)  # type: ignore[attr-defined]
    monkeypatch.setattr(run._Run, "_look_after", dying)
    assert isinstance(ends(plan), NoResources)
    goes_on(plan, monkeypatch)


@contextmanager
def stuck(plan: Plan, patch: Patch) -> Iterator[threading.Event]:
    """Workers wait in their second row until the event; nobody is patient."""
    free, begun = threading.Event(), threading.Event()

    def hook(row: int) -> None:
        if row:
            begun.set()
            free.wait(_SOON_SECONDS)

    for toy in (p.item for p in plan.placements):
        toy.hook = hook  # type: ignore[attr-defined]
    patch.setattr(run, "_PATIENCE_SECONDS", 0.3)
    yield begun
    free.set()


def test_a_signal_ends_a_run_whose_threads_do_not_end_and_nobody_writes_beside_them(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    plan = make_plan(tmp_path, toys())
    opened = job.Job.open(plan)
    request = run.StopRequest()
    with stuck(plan, monkeypatch) as begun:

        def ask() -> None:
            assert begun.wait(10)
            request.signum = signal.SIGTERM

        asking = threading.Thread(target=ask)
        asking.start()
        with pytest.raises(Interrupted, match="SIGTERM"):
            run.run(opened, share(1 << 24, 2, 64, 128), Silent(), request)
        opened.close()
        with pytest.raises(Locked):  # their files may not get another's numbers, nor another run's bytes
            job.Job.open(plan)
        asking.join()


def test_a_deadline_waits_for_threads_that_take_long(tmp_path: Path, monkeypatch: Patch) -> None:
    plan = make_plan(tmp_path, toys())
    monkeypatch.setattr(run, "_PATIENCE_SECONDS", 0.0)
    for toy in (p.item for p in plan.placements):
        toy.hook = lambda row: time.sleep(0.02)  # type: ignore[attr-defined]
    opened = job.Job.open(plan)
    with pytest.raises(errors.Stopped):
        run.run(opened, share(1 << 24, 2, 64, 128), Silent(), run.StopRequest(0.0))
    assert list(opened.journal.commits())
    opened.close()
    job.Job.open(plan).close()


def test_all_pieces_are_worked_on_with_as_many_threads_as_there_are(monkeypatch: Patch) -> None:
    for dead in (_refuse, _stillborn({5}), threads._thread.start_new_thread):
        done: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(threads._thread, "start_new_thread", dead)
            threads.spread(done.append, range(100), 4)
        assert sorted(done) == list(range(100))


def test_a_helper_that_dies_is_not_waited_for_and_not_passed_over(monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threads._thread, "start_new_thread", _stillborn({1}))
        with pytest.raises(NoResources):
            threads.spread(lambda piece: None, range(100), 4)


def test_what_fails_in_any_thread_is_raised_and_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(piece: int) -> None:
        begun.append(piece)
        if piece == 3:
            raise ValueError("three")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="three"):
        threads.spread(work, range(1000), 3)
    assert len(begun) < 20


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError(), "memory"),
    (OSError(12, "Cannot allocate memory", "x"), "x: there is not enough memory"),
    (OSError(24, "Too many open files", "model.gguf"), "model.gguf: too many files are open; the limit of this process is"),
    (OSError(23, "Too many open files in system"), "whole system"),
    (RuntimeError("can't start new thread"), "threads"),
])  # fmt: skip
def test_what_ran_out_is_named_however_it_was_passed_on(error: Exception, words: str) -> None:
    try:
        try:
            raise error
        except Exception:
            raise errors.BadInput("cannot be read") from None
    except StreamconvError as e:
        for found in (errors.exhausted(error), errors.exhausted(e)):
            assert found is not None
            assert (found.exit_code, found.resumable) == (74, True)
            assert words in found.message
            assert found.hint


def test_other_errors_are_not_of_what_ran_out() -> None:
    for error in (ValueError(), OSError(2, "not there"), RuntimeError("no"), errors.BadInput("x"), KeyError("x")):
        assert errors.exhausted(error) is None
