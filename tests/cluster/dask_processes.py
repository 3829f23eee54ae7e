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
from nursery import Child, Nursery

PATIENCE = 120.0
#: of coordinators: a silent worker is not waited for longer than Dask makes necessary, and what is made is committed at once
SOON = (
    "import streamconv.cluster.dask_pool as pool, streamconv.engine.run as run\n"
    "pool._OWN['distributed.scheduler.worker-ttl'] = '5s'\nrun._COMMIT_SECONDS = 0.1"
)


def wait_for(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


Process = subprocess.Popen[bytes] | Child


class Processes:
    """Processes that are gone with the test; what they say is in ``folder``.

    Attributes
    ----------
    env : what is set for each of them
    nursery : where they come from; None: from nothing, as a user's
    """

    def __init__(self, folder: Path, nursery: Nursery | None = None) -> None:
        self.folder, self.nursery = folder, nursery
        self.env: dict[str, str] = {}
        self._started: list[Process] = []

    def start(
        self, name: str, arguments: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        with (self.folder / f"{name}.log").open("ab") as log:
            usual = {"stdout": log, "stderr": log, "cwd": cwd, "env": {**os.environ, **self.env, **(env or {})}}
            if self.nursery is None:
                found: Process = subprocess.Popen([sys.executable, *arguments], **usual)
            else:
                usual["env"] |= self.nursery.env
                found = Child([sys.executable, *arguments], **usual)
        self._started.append(found)
        return found

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def scheduler(self, file: Path, *more: str, **config: str) -> Process:
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

    def worker(self, where: Path | str, *more: str, name: str = "worker") -> Process:
        """A worker of the scheduler whose address ``where`` is, or holds."""
        at = ["--scheduler-file", str(where)] if isinstance(where, Path) else [where]
        return self.start(
            name, ["-m", "dask", "worker", *at, "--nthreads", "1", "--no-dashboard", "--memory-limit",
                   "0", "--local-directory", str(self.folder / "scratch"), *more]
        )  # fmt: skip

    def convert(self, *arguments: str, prologue: str = SOON, command: str = "convert") -> Process:
        """A conversion; ``prologue`` is run before it."""
        if self.nursery is not None:
            prologue = f"import nursery; nursery.adopt()\n{prologue}"
        code = f"import sys\n{prologue}\nfrom streamconv.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))"
        return self.start("convert", ["-c", code, command, *arguments])

    def workers_of(self, process: Process) -> list[int]:
        """Pids of the worker processes that a conversion with ``local:N`` has started."""
        if self.nursery is not None:
            return self.nursery.children_of(process.pid)
        try:
            listed = psutil.Process(process.pid).children(recursive=True)
            return [p.pid for p in listed if "dask worker" in " ".join(p.cmdline())]
        except psutil.Error:
            return []

    def close(self) -> None:
        """End them, with the processes that they have started."""
        for process in self._started:
            for pid in self.workers_of(process):
                kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def kill(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def is_left(process: psutil.Process) -> bool:
    """Whether it has not ended; those of ``local:N`` end with their coordinator, but not while they are stopped."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def is_busy(pid: int) -> bool:
    """Whether the process does something in a tenth of a second."""
    with suppress(psutil.Error):
        return psutil.Process(pid).cpu_percent(0.1) > 5.0
    return False


def address(file: Path) -> str:
    return str(json.loads(file.read_text())["address"])


def digests(folder: Path) -> dict[str, str]:
    """Of the outputs in ``folder``."""
    made = [p for p in sorted(folder.iterdir()) if p.suffix in (".gguf", ".safetensors")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in made}
