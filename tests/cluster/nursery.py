"""A process from which others are forked that have imported everything: hundreds of workers start in no time.

It runs ``python -c`` and ``python -m dask`` as an interpreter would, and knows with what code each of its children ended.
Requests come through a socket, one a connection: JSON, and a descriptor that is to be the child's standard input.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = "STREAMCONV_NURSERY"


def _asked(path: str, request: Mapping[str, Any], *fds: int) -> Any:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        socket.send_fds(s, [json.dumps(request).encode()], list(fds))
        s.shutdown(socket.SHUT_WR)
        return json.loads(s.makefile().read())


class Child:
    """What ``subprocess.Popen`` would give, as far as it is used."""

    def __init__(
        self, arguments: Sequence[str], *, stdin: int | None = None, env: Mapping[str, str] | None = None, **named: Any
    ) -> None:
        env = dict(os.environ if env is None else env)
        self._path = env[_NAME]
        out = named.get("stdout")
        log = out.name if out is not None and not isinstance(out, int) else os.devnull
        request = {"argv": list(arguments[1:]), "env": env, "log": str(log), "cwd": str(named.get("cwd") or os.getcwd()),
                   "parent": os.getpid()}  # fmt: skip
        mine: int | None = None
        if stdin == subprocess.PIPE:
            theirs, mine = os.pipe()
        else:
            theirs = os.open(os.devnull, os.O_RDONLY)
        self.pid: int = _asked(self._path, request, theirs)
        os.close(theirs)
        self.stdin = None if mine is None else os.fdopen(mine, "wb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _asked(self._path, {"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 3600.0) -> int:
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired("a child of the nursery", timeout)
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        if self.poll() is None:  # it stays a zombie until it is asked for, so its number is no other's
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The process, which ends with the one that made it, and all of its children with it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "nursery")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.path], stdin=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip
        self.env = {_NAME: self.path}
        while not Path(self.path).exists():
            assert self._process.poll() is None
            time.sleep(0.05)

    def children_of(self, pid: int) -> list[int]:
        """Those that process ``pid`` has asked for and that have not ended."""
        found: list[int] = _asked(self.path, {"children": pid})
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def adopt() -> None:
    """Let local workers of this process be children of the nursery that it comes from."""
    from streamconv.cluster import local_workers

    if _NAME in os.environ:
        local_workers.subprocess = _Subprocess  # type: ignore[attr-defined]


class _Subprocess:
    Popen, PIPE, DEVNULL = Child, subprocess.PIPE, subprocess.DEVNULL


def _run(request: Mapping[str, Any], stdin: int) -> None:
    """Be the child."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, at in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(fd, at)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    import dask

    dask.config.refresh()
    how, what, *more = request["argv"]
    if how == "-c":
        sys.argv = ["-c", *more]
        exec(compile(what, "<nursery>", "exec"), {"__name__": "__main__"})
    else:
        assert (how, what) == ("-m", "dask")
        from dask.__main__ import main

        sys.argv = ["dask", *more]
        main()


def _fork(request: Mapping[str, Any], stdin: int, *sockets: socket.socket) -> int:
    pid = os.fork()
    if pid:
        os.close(stdin)
        return pid
    for each in sockets:
        each.close()
    code: Any = 1
    try:
        _run(request, stdin)
        code = 0
    except SystemExit as e:
        code = e.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _warm_up() -> None:
    import distributed.cli.dask_scheduler
    import distributed.cli.dask_worker
    import distributed.http.scheduler  # noqa: F401

    from streamconv.cli import main

    model = Path(__file__).resolve().parents[2] / "examples" / "tiny-gemma3"
    with tempfile.TemporaryDirectory() as folder:  # with its kernels
        main(
            [
                "convert",
                str(model),
                f"{folder}/{{type}}.gguf",
                "--type",
                "Q4_K_M,IQ3_S,Q6_K",
                "--threads",
                "1",
                "--quiet",
            ]
        )
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"


def _serve(path: str) -> None:
    _warm_up()
    codes: dict[int, int | None] = {}
    parents: dict[int, int] = {}

    def poll(pid: int) -> int | None:
        if codes[pid] is None:
            found, status = os.waitpid(pid, os.WNOHANG)
            codes[pid] = os.waitstatus_to_exitcode(status) if found else None
        return codes[pid]

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if 0 in ready:
                break
            connection, _ = listening.accept()
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 1)
                while more := connection.recv(1 << 20):
                    data += more
                request = json.loads(data)
                if "poll" in request:
                    answer: Any = poll(request["poll"])
                elif "children" in request:
                    answer = [
                        pid for pid, parent in parents.items() if parent == request["children"] and poll(pid) is None
                    ]
                else:
                    answer = _fork(request, fds[0], listening, connection)
                    codes[answer], parents[answer] = None, request["parent"]
                with suppress(OSError):
                    connection.sendall(json.dumps(answer).encode())
    for pid in codes:
        if poll(pid) is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve(sys.argv[1])
