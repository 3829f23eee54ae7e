"""Threads that need one result make it together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from streamconv.errors import Stopped
from streamconv.workers import Workers


@contextmanager
def helped(workers: Workers, count: int) -> Iterator[None]:
    """``count`` helpers, which are gone afterwards."""
    with ThreadPoolExecutor(max(1, count)) as pool:
        helpers = [pool.submit(workers.help) for _ in range(count)]
        yield
        workers.dismiss()
        for helper in helpers:
            helper.result(10)


def test_every_piece_is_done_once_whoever_does_it() -> None:
    workers = Workers()
    with helped(workers, 3):
        for n in (0, 1, 500):
            heap = iter(range(n))
            found = workers.all(lambda heap=heap: list(heap))  # type: ignore[misc]
            assert sorted(piece for part in found for piece in part) == list(range(n))


def test_what_fails_in_a_helper_fails_for_the_leader_and_lets_everybody_go() -> None:
    workers, leader = Workers(), threading.current_thread()
    failed = threading.Event()

    def work() -> None:
        if threading.current_thread() is leader:
            assert failed.wait(10)
        else:
            failed.set()
            raise OSError("gone")

    with helped(workers, 1), pytest.raises(OSError, match="gone"):
        workers.all(work)


def test_what_fails_in_the_leader_leaves_no_helper_waiting() -> None:
    workers = Workers()

    def work() -> None:
        raise ValueError

    with helped(workers, 2):
        with pytest.raises(ValueError):
            workers.all(work)
        assert len(workers.all(lambda: 1)) >= 1


def _while_wanted(body: Callable[[Workers], object]) -> BaseException | None:
    """What ``body`` raises in a thread whose workers is wanted for a moment only; fails the test when it does not end."""
    found: list[BaseException | None] = []
    over = threading.Event()
    workers = Workers(lambda: not over.is_set())

    def run() -> None:
        try:
            body(workers)
            found.append(None)
        except BaseException as e:
            found.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    over.set()
    thread.join(10)
    assert found, "it hangs"
    return found[0]


def test_a_leader_that_died_without_a_word_keeps_no_helper_once_nobody_wants_the_result() -> None:
    assert isinstance(_while_wanted(Workers.help), Stopped)


def test_a_helper_that_died_without_a_word_keeps_no_leader_once_nobody_wants_the_result() -> None:
    def lead(workers: Workers) -> None:
        workers._busy = 1  # as one leaves it that has no memory to say that it goes
        workers.all(lambda: 1)

    assert isinstance(_while_wanted(lead), Stopped)
