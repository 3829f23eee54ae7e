"""Runs whose allocations fail from a chosen one on, for a while or for good, with a limit on how long they may take."""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamconv.conversion import execution

from .injector import forked

#: no run of these small jobs takes a tenth of it, even beside other work
_SECONDS = 60.0
#: exit code of a child that was killed because it hung
HANGS = -999


def bounded(argv: list[str], log: Path, planted: Callable[[], None], seconds: float = _SECONDS) -> tuple[int, str]:
    """Run ``streamconv argv`` in a child of this process, with ``planted`` called first; its exit code and what it printed."""

    def before() -> None:
        faulthandler.register(signal.SIGUSR1, file=2)  # takes no memory
        planted()

    pid = forked(argv, log, before, lambda: None)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.005)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return HANGS, log.read_text(errors="replace")


def _when_it_runs(act: Callable[[], None]) -> None:
    """Call ``act`` when planning is over and threads are about to start."""
    real = execution.runs.run

    def run(*args: Any) -> Any:
        act()
        return real(*args)

    execution.runs.run = run  # type: ignore[assignment]


@dataclass(frozen=True)
class OfPython:
    """``count`` allocations of Python objects fail, from number ``first`` on.

    Never for good: CPython, when it finds no memory for what it notes of an exception (3.11: the number of the instruction
    that raised it), looks for it again and again without letting go of the interpreter.

    Attributes
    ----------
    from_start : counted from the beginning of the command, else from where threads are about to start
    """

    first: int
    count: int
    from_start: bool = False

    def __call__(self) -> None:
        import _testcapi

        def act() -> None:
            _testcapi.set_nomemory(self.first, self.first + self.count)

        act() if self.from_start else _when_it_runs(act)


@dataclass(frozen=True)
class OfArrays:
    """``count`` arrays and mappings cannot be made, from number ``first`` on; with 0 none from there on."""

    first: int
    count: int = 0

    def __call__(self) -> None:
        made = iter(range(1 << 60))

        def failing(real: Callable[..., Any], error: Callable[[], Exception]) -> Callable[..., Any]:
            def make(*args: Any, **kwargs: Any) -> Any:
                number = next(made)
                if self.first <= number and (not self.count or number < self.first + self.count):
                    raise error()
                return real(*args, **kwargs)

            return make

        for name in ("empty", "zeros", "full", "ascontiguousarray"):
            setattr(np, name, failing(getattr(np, name), lambda: MemoryError("Unable to allocate")))
        mmap.mmap = failing(mmap.mmap, lambda: OSError(12, os.strerror(12)))  # type: ignore[assignment,misc]


@dataclass(frozen=True)
class OfAddresses:
    """The process may have only so many more bytes of addresses from where threads are about to start."""

    more: int

    def __call__(self) -> None:
        def act() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * mmap.PAGESIZE + self.more
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

        _when_it_runs(act)
