"""Being asked to stop in the middle of a look at a whole tensor, which may take long."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from toy_jobs import Look, Toy, make_plan

from streamconv.engine import job, run
from streamconv.engine.budget import share
from streamconv.errors import Interrupted, Stopped, WriteFailed
from streamconv.progress import Silent
from streamconv.workers import Workers


def endless(workers: Workers) -> None:
    """A look that nobody waits for the end of."""
    for _ in range(1000):
        workers.go_on()
        threading.Event().wait(0.01)
    raise AssertionError("nobody stopped it")


def go(folder: Path, toys: list[Toy], threads: int, request: run.StopRequest) -> None:
    opened = job.Job.open(make_plan(folder, toys))
    try:
        run.run(opened, share(1 << 24, threads, 64, 128), Silent(), request)
    finally:
        opened.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_signal_ends_a_look_at_a_whole_tensor(tmp_path: Path, threads: int) -> None:
    request = run.StopRequest()

    def asked() -> None:
        request.signum = signal.SIGTERM
        request.event.set()

    timer = threading.Timer(0.1, asked)
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        go(tmp_path, [Toy(name, looks=[Look(endless)]) for name in "abc"], threads, request)
    timer.join()


def test_an_error_of_one_thread_ends_the_look_of_another(tmp_path: Path) -> None:
    begun, short = threading.Event(), Toy("b", 4)

    def looking(workers: Workers) -> None:
        begun.set()
        endless(workers)

    def failing(_row: int) -> None:
        assert begun.wait(10)
        raise WriteFailed("gone")

    short.hook = failing
    with pytest.raises(WriteFailed, match="gone"):
        go(tmp_path, [Toy("a", 4, looks=[Look(looking)]), short], 2, run.StopRequest())


def test_a_deadline_lets_the_first_look_of_a_run_end_or_no_run_would_ever_come_past_it(tmp_path: Path) -> None:
    def looking(workers: Workers) -> None:
        for _ in range(5):
            time.sleep(0.02)
            workers.go_on()

    go(tmp_path, [Toy("a", 4, looks=[Look(looking)])], 1, run.StopRequest(0.01))
    assert (tmp_path / "out.bin").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_deadline_ends_a_look_once_the_run_has_made_something(tmp_path: Path, threads: int) -> None:
    long = Toy("b", 4, looks=[Look(endless)])
    began = time.monotonic()
    with pytest.raises(Stopped, match="stopped as requested"):
        go(tmp_path, [Toy("a", 4), long], threads, run.StopRequest(0.2))
    assert time.monotonic() - began < 5
    assert not long.made
