"""Being asked to stop in the middle of a row that takes long."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from toy_jobs import Toy, make_plan

from streamconv.engine import job, run
from streamconv.engine.budget import share
from streamconv.errors import Interrupted, WriteFailed
from streamconv.progress import Silent
from streamconv.rows import stop_if_unwanted


def endless(_row: int) -> None:
    """What goes over a whole tensor before its first row."""
    for _ in range(1000):
        stop_if_unwanted()
        threading.Event().wait(0.01)
    raise AssertionError("nobody stopped it")


@pytest.mark.parametrize("threads", [1, 3])
def test_a_signal_ends_a_pass_over_a_whole_tensor(tmp_path: Path, threads: int) -> None:
    toys = [Toy(name) for name in "abc"]
    for toy in toys:
        toy.hook = endless
    opened = job.Job.open(make_plan(tmp_path, toys))
    request = run.StopRequest()

    def asked() -> None:
        request.signum = signal.SIGTERM
        request.event.set()

    timer = threading.Timer(0.1, asked)
    timer.start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        run.run(opened, share(1 << 24, threads, 64, 128), Silent(), request)
    timer.join()
    opened.close()


def test_an_error_of_one_thread_ends_the_passes_of_the_others(tmp_path: Path) -> None:
    long, short = Toy("a", 4), Toy("b", 4)
    begun = threading.Event()

    def passing(row: int) -> None:
        begun.set()
        endless(row)

    def failing(_row: int) -> None:
        assert begun.wait(10)
        raise WriteFailed("gone")

    long.hook, short.hook = passing, failing
    opened = job.Job.open(make_plan(tmp_path, [long, short]))
    with pytest.raises(WriteFailed, match="gone"):
        run.run(opened, share(1 << 24, 2, 64, 128), Silent(), run.StopRequest())
    opened.close()


def test_a_deadline_lets_a_pass_over_a_whole_tensor_end_or_no_run_would_ever_come_past_it(tmp_path: Path) -> None:
    toy = Toy("a", 4)
    waited = threading.Event()
    toy.hook = lambda row: (waited.wait(0.05), stop_if_unwanted())  # type: ignore[func-returns-value]
    opened = job.Job.open(make_plan(tmp_path, [toy]))
    run.run(opened, share(1 << 24, 1, 64, 128), Silent(), run.StopRequest(0.01))
    opened.close()
    assert (tmp_path / "out.bin").exists()
