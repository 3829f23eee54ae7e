"""Threads whose end is always seen, and what they share: nothing here waits for a thread that has died.

``threading.Thread.start`` waits until the new thread says that it runs. One that gets no memory before it can say so leaves
its starter waiting for ever, and one that dies in its last lines leaves its waiters blocked. Here nothing is waited for at
the start, and whether a thread is gone is seen from an object that the interpreter holds exactly as long as the thread lives.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from .errors import NoResources, exhausted

T = TypeVar("T")
#: between two looks at a thread that may have died without a word
_LOOK_SECONDS = 0.1


class _Sign:
    """Alive while a thread is."""

    __slots__ = ("__weakref__",)


class Thread:
    """One thread; the process does not wait for it when it ends.

    Parameters
    ----------
    body : what it does; what it raises is kept in ``failure``
    at_end : called by the thread when it has ended, unless it died before it could
    """

    # Slots: setting one needs no memory.
    __slots__ = ("_at_end", "_begun", "_body", "_error", "_good", "_over", "_running", "_sign")

    def __init__(self, body: Callable[[], None], at_end: Callable[[], None] = lambda: None) -> None:
        self._body, self._at_end = body, at_end
        self._running = _thread.allocate_lock()
        self._sign: Callable[[], _Sign | None] = lambda: None
        self._begun = self._over = self._good = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin; returns at once. Once only.

        Raises
        ------
        NoResources : the system grants no thread, or no memory for it
        """
        sign = _Sign()
        self._sign = weakref.ref(sign)
        self._running.acquire()
        self._begun = True
        try:
            _thread.start_new_thread(self._run, (sign,))
        except BaseException as e:
            self._over = True
            raise exhausted(e) or e from None
        finally:
            del sign  # errors keep what was here

    def _run(self, sign: _Sign | None) -> None:
        del sign  # the interpreter holds the only reference now, and lets go of it when the thread is gone, however
        try:
            trace = threading.gettrace()
            if trace is not None:  # debuggers and coverage, as threading.Thread has them
                sys.settrace(trace)
            self._body()
            self._good = True
        except BaseException as e:
            self._error = e
        finally:
            self._over = True
            self._running.release()
            try:
                self._at_end()
            except BaseException as e:  # waiters poll now and then
                self._error = self._error or e

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return not self._over and self._sign() is not None

    @property
    def failure(self) -> BaseException | None:
        """Why it ended; None before it began, while it runs, and when its body returned."""
        if not self._begun or self.is_alive() or self._good:
            return None
        return self._error or NoResources(
            "a thread ended before it started: there is not enough memory", "Use fewer --threads or less --ram."
        )

    def join(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for its end; whether it ended."""
        until = time.monotonic() + seconds
        while self.is_alive():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self._running.acquire(timeout=min(left, _LOOK_SECONDS)):
                self._running.release()
        return True


class Monitor(threading.Condition):
    """A condition whose lock is released even where there is no memory: leaving takes none, which of its base it does."""

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.release()


class Latch:
    """What can be set once and is only looked at: unlike a ``threading.Event`` it has no lock that a dead thread could hold."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """From now on it is."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set


def spread(work: Callable[[T], None], pieces: Sequence[T], n_threads: int) -> None:
    """Call ``work`` for each piece, on this thread and up to ``n_threads - 1`` others, as many as the system grants.

    Returns when all of them are done. Raises what a call raised; no other piece is begun then.
    """
    heap = iter(pieces)  # taking the next one is one step of the interpreter, so threads may share it

    def take_part() -> None:
        try:
            for piece in heap:
                work(piece)
        finally:
            for _ in heap:  # left where one fails
                pass

    helpers: list[Thread] = []
    try:
        for _ in range(min(n_threads, len(pieces)) - 1):
            helper = Thread(take_part)
            try:
                helper.start()
            except NoResources:
                break
            helpers.append(helper)
        take_part()
    finally:
        for helper in helpers:
            while not helper.join(_LOOK_SECONDS):
                pass
    for helper in helpers:
        if helper.failure is not None:
            raise helper.failure
