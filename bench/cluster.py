"""What workers cost on one machine: the same conversion by two threads and by two workers with one thread each.

    cluster.py MODEL [--type IQ3_S] [--rounds 3] [--work /tmp/streamconv-bench]      one JSON line per measurement, the ratio last

Scheduler and workers are started before the clock, and have converted something with the same kernels. What starting them takes
is told apart: a small conversion with ``local:2``, and by threads. The bar is a ratio of 1.05 on a job of at least 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Run, place, run

TINY = Path(__file__).resolve().parent.parent / "examples" / "tiny-gemma3"
_ONE = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@contextmanager
def workers(work: Path, n: int) -> Iterator[Path]:
    """The file with the address of a scheduler that has ``n`` workers of one thread."""
    file = work / "scheduler.json"
    file.unlink(missing_ok=True)
    usual = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, **_ONE}}
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
            **usual,
        )  # fmt: skip
    ]
    while not file.exists():
        time.sleep(0.1)
    try:
        for _ in range(n):
            more = [
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--memory-limit",
                "0",
                "--local-directory",
                str(work),
            ]
            started.append(subprocess.Popen([*dask, "worker", "--scheduler-file", str(file), *more], **usual))
        yield file
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def convert(source: Path, out: Path, type_: str, *more: str) -> Run:
    """To ``out``, which is deleted again."""
    result = run(
        [sys.executable, "-m", "streamconv", "convert", str(source), str(out), "--type", type_, "--quiet", *more]
    )
    out.unlink()
    return result


def emit(what: str, **facts: object) -> None:
    print(json.dumps({"bench": "cluster", **place(), "what": what, **facts}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--type", default="IQ3_S")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    a = parser.parse_args()
    a.work.mkdir(exist_ok=True)
    out = a.work / "cluster.gguf"
    convert(TINY, out, a.type)  # compiles what is not compiled yet
    small = {name: convert(TINY, out, a.type, *more) for name, more in {
        "threads": ["--threads", "2"], "local:2": ["--cluster", "local:2", "--threads", "2"],
    }.items()}  # fmt: skip
    emit(f"start-up, {TINY.name} to {a.type}", **{name: each.as_dict() for name, each in small.items()})
    found: dict[str, list[float]] = {"threads": [], "workers": []}
    with workers(a.work, 2) as file:
        for _ in range(3):  # so that both have had something to do
            convert(TINY, out, a.type, "--cluster", str(file))
        for _ in range(a.rounds):
            for name, more in (("threads", ["--threads", "2"]), ("workers", ["--cluster", str(file)])):
                result = convert(a.model, out, a.type, *more)
                found[name].append(result.wall_s)
                emit(f"{a.type} by two {name}", **result.as_dict())
    threads, others = (min(found[name]) for name in ("threads", "workers"))
    emit("ratio", threads_s=round(threads, 2), workers_s=round(others, 2), ratio=round(others / threads, 4))


if __name__ == "__main__":
    main()
