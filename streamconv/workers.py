"""Threads that need the same result compute it together: none waits while it could work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import Stopped
from .threads import Monitor

T = TypeVar("T")
#: between two looks at whether the result is still wanted: a thread that died without a word does not say so itself
_LOOK_SECONDS = 0.5


class Workers:
    """One thread leads: it calls the other methods as often as it likes, then ``dismiss``. Any may call ``help`` meanwhile.

    Parameters
    ----------
    wanted : whether the result is still wanted
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self._wanted = wanted
        self._changed = Monitor()
        self._work: Callable[[], Any] | None = None
        self._found: list[Any] = []
        self._error: BaseException | None = None
        self._reason: BaseException | None = None
        self._busy = 0
        self._dismissed = False

    def go_on(self) -> None:
        """Raise Stopped if the computation was cancelled."""
        if not self._wanted():
            raise Stopped("the read of these rows was cancelled")

    def map(self, work: Callable[[T], Any], pieces: Sequence[T]) -> list[Any]:
        """``work(piece)`` of every piece, in order."""

        def keep(kept: list[tuple[int, Any]], at: int) -> None:
            kept.append((at, work(pieces[at])))

        def new() -> list[tuple[int, Any]]:
            return []

        found = self.fold(new, keep, len(pieces))
        return [value for _, value in sorted((pair for part in found for pair in part), key=lambda pair: pair[0])]

    def add_up(self, work: Callable[[T], Iterable[NDArray[Any]]], pieces: Sequence[T], total: NDArray[Any]) -> None:
        """Add the arrays of ``work(piece)`` to ``total``, piece after piece: held only while an earlier one is made."""
        early: dict[int, Iterable[NDArray[Any]]] = {}
        lock = threading.Lock()
        following = 0

        def keep(_: None, at: int) -> None:
            nonlocal following
            found = work(pieces[at])
            with lock:
                early[at] = found
                while following in early:
                    for part in early.pop(following):
                        np.add(total, part, out=total)
                    following += 1

        self.fold(lambda: None, keep, len(pieces))

    def fold(self, new: Callable[[], T], work: Callable[[T, int], None], n: int) -> list[T]:
        """Call ``work(kept, piece)`` for every piece ``0 … n - 1``; each thread keeps a ``new()`` of its own.

        Which pieces a thread gets is not fixed: what is kept must not depend on it, once all are put together. Where one fails,
        or the result is no longer wanted, no other is started.
        """
        heap = iter(range(n))  # taking the next one is one step of the interpreter, so threads may share it

        def take_part() -> T:
            kept = new()
            try:
                for at in heap:
                    self.go_on()
                    work(kept, at)
            finally:
                for _ in heap:  # left where a piece fails
                    pass
            return kept

        return self.all(take_part)

    def all(self, work: Callable[[], T]) -> list[T]:
        """What ``work()`` returns to the leader and to every helper that is there or comes while it runs.

        ``work`` takes pieces from a common heap until there are none; afterwards no thread is inside of it any more.
        Raises what it raised in any thread; Stopped where the result is no longer wanted and a helper does not return.
        """
        with self._changed:
            self._work, self._found, self._error = work, [], None
            self._changed.notify_all()
        try:
            found = work()
        finally:
            with self._changed:
                self._work = None
                while self._busy:
                    self._wait()
        if self._error is not None:
            raise self._error
        return [found, *self._found]

    def help(self) -> None:
        """Take part until the workers is dismissed. Raises what it is dismissed for."""
        done: Callable[[], Any] | None = None
        while True:
            with self._changed:
                while not self._dismissed and (self._work is None or self._work is done):
                    self._wait()
                if self._dismissed:
                    break
                done = work = self._work
                assert work is not None
                self._busy += 1
            try:
                self._found.append(work())
            except BaseException as e:
                self._error = e
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
        if self._reason is not None:
            raise self._reason

    def _wait(self) -> None:
        if not self._changed.wait(_LOOK_SECONDS):
            self.go_on()

    def dismiss(self, reason: BaseException | None = None) -> None:
        """Let the helpers go; ``reason`` is why there is no result: its waiters would only fail again."""
        with self._changed:
            self._dismissed, self._reason = True, reason
            self._changed.notify_all()
