"""Run the command line in a forked child that dies at a chosen moment, or whose write system calls fail or die at a chosen call."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamconv import cli
from streamconv.engine import copying, fallocate, files, renames, trials

CALLS = frozenset(
    [
        "pwrite",
        "copy_file_range",
        "fdatasync",
        "fsync",
        "rename",
        "link",
        "ftruncate",
        "mkdir",
        "rmdir",
        "unlink",
        "symlink",
    ]
)


@dataclass(frozen=True)
class Fault:
    """What happens at write call number ``at`` (from 1).

    Attributes
    ----------
    action : ``kill before``, ``kill after``, ``short`` (pwrite takes a third), or the name of an errno
    sticky : every later call fails too
    """

    at: int = 0
    action: str = ""
    sticky: bool = False


class FaultyOs:
    """Stands in for the ``os`` module in ``engine/files.py``."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.count = fault, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *a, **k: self._call(name, real, *a, **k)) if name in CALLS else real

    def rename_with(self, flag: int, old: Path, new: Path) -> bool:
        """Stands in for ``engine.renames``."""
        return bool(self._call("renameat2", renames.rename_with, flag, old, new))

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """Stands in for ``engine.fallocate``."""
        self._call("fallocate", fallocate.fallocate, fd, mode, offset, length)

    def _call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        f = self.fault
        hit = f.action and (self.count == f.at or (f.sticky and self.count > f.at))
        if hit and f.action == "kill before":
            os.kill(os.getpid(), signal.SIGKILL)
        if hit and f.action == "short" and name == "pwrite":
            return real(args[0], bytes(args[1])[: max(1, len(args[1]) // 3)], args[2])
        if hit and f.action.startswith("E"):
            number = getattr(errno, f.action)
            raise OSError(number, os.strerror(number))
        result = real(*args, **kwargs)
        if hit and f.action == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result


@dataclass(frozen=True)
class Result:
    """How the child ended: exit code (negative = signal), its stderr, write calls it made."""

    code: int
    stderr: str
    calls: int


def forked(argv: list[str], log: Path, before: Callable[[], None], after: Callable[[], None]) -> int:
    """Run ``streamconv argv`` in a child of this process and return its pid; imports are warm, so it takes milliseconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():  # of forking beside other threads: the child has none
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            out = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            before()
            code = cli.main(argv)
            sys.stdout.flush()
            sys.stderr.flush()
            after()
        finally:
            os._exit(code)
    return pid


def run(argv: list[str], log: Path, fault: Fault = Fault(), planted: Callable[[], None] | None = None) -> Result:
    """Run ``streamconv argv`` in a child."""
    counted = log.with_suffix(".count")
    counted.unlink(missing_ok=True)
    faulty = FaultyOs(fault)

    def before() -> None:
        files.os = trials.os = copying.os = faulty  # type: ignore[assignment]
        files.rename_with = faulty.rename_with
        files.fallocate = faulty.fallocate
        if planted:
            planted()

    pid = forked(argv, log, before, lambda: counted.write_text(str(faulty.count)) and None)
    _, status = os.waitpid(pid, 0)
    calls = int(counted.read_text()) if counted.exists() else 0
    return Result(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), calls)


def killed_after(seconds: float, argv: list[str], log: Path, planted: Callable[[], None] = lambda: None) -> int | None:
    """Run ``streamconv argv`` in a child and kill it; its exit code when it was done before."""
    pid = forked(argv, log, planted, lambda: None)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def signalled_after(seconds: float, signum: int, argv: list[str], log: Path) -> tuple[int, float]:
    """Run ``streamconv argv`` in a child and send it a signal; its exit code, and how long it took to end."""
    pid = forked(argv, log, lambda: signal.signal(signum, signal.SIG_DFL) and None, lambda: None)
    time.sleep(seconds)
    began = time.monotonic()
    os.kill(pid, signum)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began


def at_once(argv: list[str], logs: list[Path], planted: Callable[[], None] | None = None) -> list[int]:
    """Run ``streamconv argv`` in as many children as there are ``logs``, begun at the same moment; their exit codes."""
    reads, writes = os.pipe()

    def before() -> None:
        if planted:
            planted()
        os.close(writes)
        os.read(reads, 1)  # ends when the parent closes its side

    pids = [forked(argv, log, before, lambda: None) for log in logs]
    os.close(writes)
    os.close(reads)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def flip(path: Path, rng: random.Random) -> None:
    """One random bit, or in one of ten cases 4 KiB of zeros."""
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    if rng.random() < 0.1:
        raw[at : at + 4096] = bytes(len(raw[at : at + 4096]))
    else:
        raw[at] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
