"""Worker processes of this machine, restarted when they end.

They are programs of their own, not children of ``multiprocessing``: those import the main module of the caller, and Dask's
nannies give a worker up that is killed while it starts. Each holds a pipe to this process: where that one dies, in whatever way
and however early, they end, and remove what they have in the folder of temporary files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from ..errors import NetworkError

#: a process that ends is started again, but so many times and so soon only once one has been a worker
_STARTS, _PAUSE_SECONDS = 5, 1.0
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class LocalWorkers:
    """``n`` workers with ``threads`` each, of the scheduler at ``address``; they end with it."""

    def __init__(self, n: int, threads: int, address: str) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="streamconv-", ignore_cleanup_errors=True)
        # With the search path of this process: with -m, modules would be looked for in the current folder, which may be a model's.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({self._scratch.name!r})"
        self._command = [
            sys.executable, "-c", code, "dask", "worker", address, "--nworkers", "1", "--nthreads", str(threads), "--no-nanny",
            "--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "0", "--local-directory", self._scratch.name,
        ]  # fmt: skip
        self._n_started = 0
        self._began = 0.0
        self._processes = [self._start() for _ in range(n)]

    def look_after(self, has_worked: bool) -> None:
        """Start those that have ended.

        Parameters
        ----------
        has_worked : whether any has ever been a worker

        Raises
        ------
        NetworkError : they end whatever is done
        """
        for at, process in enumerate(self._processes):
            if process.poll() is None or time.monotonic() < self._began + _PAUSE_SECONDS:
                continue
            if not has_worked and self._n_started >= _STARTS * len(self._processes):
                raise NetworkError(
                    f"the workers of this machine end at once, with code {process.returncode}",
                    f"To see why: {sys.executable} -m dask worker tcp://127.0.0.1:1 --no-nanny",
                )
            _forget(process)
            self._processes[at] = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._n_started += 1
        self._began = time.monotonic()
        # Of a session of its own: what a terminal sends to all is for the coordinator, which stops cleanly.
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD}, start_new_session=True,
        )  # fmt: skip

    def close(self) -> None:
        """End them, stopped ones too: nothing of theirs is needed any more."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            _forget(process)
        self._scratch.cleanup()


def _forget(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def serve(scratch: str) -> None:
    """What a worker process does: ``dask worker`` with its arguments, until the process at the other end of its input is gone."""
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    from dask.__main__ import main

    del sys.argv[0]
    main()


def _end_with_parent(scratch: str) -> None:
    while os.read(0, 1):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)  # what is being made does not count any more
