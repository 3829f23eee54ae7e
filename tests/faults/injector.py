"""Run the command line in a forked child whose write system calls fail, die or lose data at a chosen call."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from streamconv import cli
from streamconv.engine import files
from streamconv.engine.journal import read_progress

CALLS = ("pwrite", "fdatasync", "fsync", "rename", "posix_fallocate", "ftruncate", "mkdir")


@dataclass(frozen=True)
class Fault:
    """What happens at write call number ``at`` (from 1).

    Attributes
    ----------
    action : ``kill before``, ``kill after``, ``short`` (pwrite takes a third), or the name of an errno
    sticky : every later call fails too
    power_loss : data of part files that no fdatasync confirmed is lost when the child is killed
    """

    at: int = 0
    action: str = ""
    sticky: bool = False
    power_loss: bool = False


class FaultyOs:
    """Stands in for the ``os`` module in ``engine/files.py``."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.count = fault, 0
        self.pending: dict[int, list[tuple[int, bytes]]] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *a, **k: self._call(name, real, *a, **k)) if name in CALLS else real

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
        result = self._perform(name, real, *args, **kwargs)
        if hit and f.action == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def _perform(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        delayed = self.fault.power_loss and name == "pwrite"
        if delayed and os.readlink(f"/proc/self/fd/{args[0]}").endswith(".part"):
            self.pending.setdefault(args[0], []).append((args[2], bytes(args[1])))
            return len(args[1])
        if name == "fdatasync":
            self.flush(args[0])
        return real(*args, **kwargs)

    def flush(self, fd: int) -> None:
        """Let what is pending for ``fd`` reach the disk."""
        for offset, data in self.pending.pop(fd, []):
            os.pwrite(fd, data, offset)

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        """Reads see pending writes, as they would in the page cache."""
        self.flush(fd)
        return os.pread(fd, n, offset)


@dataclass(frozen=True)
class Result:
    """How the child ended: exit code (negative = signal), its stderr, write calls it made."""

    code: int
    stderr: str
    calls: int


def run(argv: list[str], log: Path, fault: Fault = Fault(), planted: Callable[[], None] | None = None) -> Result:
    """Run ``streamconv argv`` in a child of this process; imports are warm, so it takes milliseconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    counted = log.with_suffix(".count")
    counted.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            out = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            faulty = FaultyOs(fault)
            files.os = faulty  # type: ignore[assignment]
            if planted:
                planted()
            code = cli.main(argv)
            for fd in list(faulty.pending):
                faulty.flush(fd)
            sys.stderr.flush()
            counted.write_text(str(faulty.count))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    calls = int(counted.read_text()) if counted.exists() else 0
    return Result(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), calls)


def false_stamps(output: Path) -> list[int]:
    """Chunks whose slot is valid although the bytes are not there: violations of the index's one promise."""
    job = output.with_name(output.name + ".streamconv")
    found = read_progress(job / "index.wal")
    if found is None:
        return []
    wrong = []
    for s in found[1]:
        part = job / f"data-{s.file + 1}.part"
        if not part.exists():
            continue  # published
        with open(part, "rb") as f:
            f.seek(s.offset)
            if xxhash.xxh3_128_digest(f.read(s.length)) != s.digest:
                wrong.append(s.chunk)
    return wrong


def flip(path: Path, rng: random.Random) -> None:
    """One random bit, or in one of ten cases 4 KiB of zeros."""
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    if rng.random() < 0.1:
        raw[at : at + 4096] = bytes(len(raw[at : at + 4096]))
    else:
        raw[at] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
