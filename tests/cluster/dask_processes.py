"""Schedulers, workers and conversions as processes of their own, which may be killed and stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

PATIENCE = 120.0


def wait_for(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


class Processes:
    """Processes that are gone with the test; what they say is in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, arguments: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            found = subprocess.Popen(
                [sys.executable, *arguments], stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=cwd
            )
        self._started.append(found)
        return found

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def scheduler(self, file: Path, *more: str, **config: str) -> subprocess.Popen[bytes]:
        """A scheduler of this machine only, whose address is in ``file`` when this returns."""
        file.unlink(missing_ok=True)
        env = {f"DASK_DISTRIBUTED__{name}": value for name, value in config.items()}
        port = [] if "--port" in more else ["--port", "0"]
        found = self.start(
            "scheduler", ["-m", "dask", "scheduler", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file),
                          *port, *more], env
        )  # fmt: skip
        wait_for(lambda: file.exists() and file.stat().st_size)
        return found

    def worker(self, file: Path, *more: str, name: str = "worker") -> subprocess.Popen[bytes]:
        return self.start(
            name, ["-m", "dask", "worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--memory-limit",
                   "0", "--local-directory", str(self.folder / "scratch"), *more]
        )  # fmt: skip

    def convert(self, *arguments: str, prologue: str = "", command: str = "convert") -> subprocess.Popen[bytes]:
        """A conversion; ``prologue`` is run before it."""
        code = f"import sys\n{prologue}\nfrom streamconv.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))"
        return self.start("convert", ["-c", code, command, *arguments])

    def close(self) -> None:
        for process in self._started:
            victims = [process.pid]
            if process.poll() is None:
                victims += [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
            for pid in victims:
                kill(pid, signal.SIGKILL) if process.poll() is None or pid != process.pid else None
            process.wait()


def kill(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Pids of the worker processes that a conversion with ``local:N`` has started."""
    try:
        listed = psutil.Process(process.pid).children(recursive=True)
        return [p.pid for p in listed if "dask worker" in " ".join(p.cmdline())]
    except psutil.Error:
        return []


def address(file: Path) -> str:
    return str(json.loads(file.read_text())["address"])


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.suffix == ".gguf"}
