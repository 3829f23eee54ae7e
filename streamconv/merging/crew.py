"""Threads that need the same result and make it together: nobody waits who could work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..rows import stop_if_unwanted
from ..threads import Monitor

T = TypeVar("T")
#: between two looks at whether anybody still wants the result: a thread that died without a word does not say so itself
_LOOK_SECONDS = 0.5


class Crew:
    """One thread leads: it calls ``all`` as often as it likes, then ``dismiss``. Any others may call ``help`` meanwhile."""

    def __init__(self) -> None:
        self._changed = Monitor()
        self._work: Callable[[], Any] | None = None
        self._found: list[Any] = []
        self._error: BaseException | None = None
        self._reason: BaseException | None = None
        self._busy = 0
        self._dismissed = False

    def all(self, work: Callable[[], T]) -> list[T]:
        """What ``work()`` returns to the leader and to every helper that is there or comes while it runs.

        ``work`` takes pieces from a common heap until there are none; afterwards no thread is inside of it any more.
        Raises what it raised in any thread; Stopped where nobody wants the result any more and a helper does not come back.
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
        """Take part until the crew is dismissed. Raises what it is dismissed for."""
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
            stop_if_unwanted()

    def dismiss(self, reason: BaseException | None = None) -> None:
        """Let the helpers go; ``reason`` is why there is no result: whoever waited for it would only fail again."""
        with self._changed:
            self._dismissed, self._reason = True, reason
            self._changed.notify_all()
