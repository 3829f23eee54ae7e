"""What workers cost on one machine, and what more of them bring: the same conversion by N threads and by N workers of one thread.

    cluster.py MODEL [--type IQ3_S] [--workers 2] [--rounds 3] [--work /tmp/streamconv-bench]
    cluster.py MODEL --workers 1,2,4,8                       with the speed-up against one worker

One JSON line per measurement; for each N the ratio of the quickest runs. Scheduler and workers are started before the clock, and
each has converted something with the same kernels. What starting takes is told apart: a small conversion by N threads, by workers
that are there, and with ``local:N``. The bars: a ratio of 1.05 for two workers, and a speed-up of 0.9 per worker up to 8, on a job
of at least 5 minutes and as many cores.
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
#: a ratio says little of shorter jobs
LONG_S = 300
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
    try:
        while not file.exists():
            if started[0].poll() is not None:
                raise SystemExit(f"the scheduler ended with code {started[0].returncode}")
            time.sleep(0.1)
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
    """To ``out``, which is deleted again; several types go to a file each."""
    name = out.with_stem(f"{out.stem}-{{type}}") if "," in type_ else out
    command = [sys.executable, "-m", "streamconv", "convert", str(source), str(name), "--type", type_, "--quiet"]
    result = run([*command, *more])
    for made in out.parent.glob(f"{out.stem}*.gguf"):
        made.unlink()
    return result


def emit(what: str, **facts: object) -> None:
    print(json.dumps({"bench": "cluster", **place(), "what": what, **facts}), flush=True)


def warm(file: Path, n: int, type_: str) -> None:
    """Wait for ``n`` workers, and let each convert something."""
    from distributed import Client

    def alone(source: str, name: str) -> None:
        import tempfile

        import streamconv

        with tempfile.TemporaryDirectory() as folder:
            streamconv.convert(source, f"{folder}/{{type}}.gguf" if "," in name else f"{folder}/x.gguf", type=name)

    with Client(scheduler_file=str(file)) as client:
        client.wait_for_workers(n, timeout=120)
        client.run(alone, str(TINY), type_)


def start_up(out: Path, type_: str, n: int, file: Path) -> None:
    """What a small conversion takes by threads, by workers that are there, and by those that are started for it."""
    ways = {
        "threads": ["--threads", str(n)], "workers": ["--cluster", str(file)],
        "local": ["--cluster", f"local:{n}", "--threads", str(n)],
    }  # fmt: skip
    found = {name: convert(TINY, out, type_, *more).as_dict() for name, more in ways.items()}
    emit(f"start-up, {TINY.name} to {type_}", n=n, **found)


def compare(model: Path, out: Path, type_: str, n: int, rounds: int) -> float:
    """Measure ``n`` threads and ``n`` workers in turn; the seconds of the workers' quickest run."""
    found: dict[str, list[float]] = {"threads": [], "workers": []}
    with workers(out.parent, n) as file:
        warm(file, n, type_)
        start_up(out, type_, n, file)
        for _ in range(rounds):
            for name, more in (("threads", ["--threads", str(n)]), ("workers", ["--cluster", str(file)])):
                result = convert(model, out, type_, *more)
                found[name].append(result.wall_s)
                emit(f"{type_} by {name}", n=n, **result.as_dict())
    threads, others = (min(found[name]) for name in ("threads", "workers"))
    facts: dict[str, object] = {} if threads >= LONG_S else {"note": f"the bar is for jobs of {LONG_S} s or more"}
    emit(
        "ratio", n=n, threads_s=round(threads, 2), workers_s=round(others, 2), ratio=round(others / threads, 4), **facts
    )
    return others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--type", default="IQ3_S", help="one, or several with commas between, made from one read")
    parser.add_argument("--workers", default="2", help="numbers of them, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    a = parser.parse_args()
    counts = sorted({int(n) for n in a.workers.split(",")})
    cores = len(os.sched_getaffinity(0))
    if counts[-1] > cores:
        parser.error(f"--workers {counts[-1]}: this machine has {cores} cores")
    a.work.mkdir(exist_ok=True, parents=True)
    out = a.work / "cluster.gguf"
    convert(TINY, out, a.type)  # compiles what is not compiled yet
    seconds = {n: compare(a.model, out, a.type, n, a.rounds) for n in counts}
    if 1 in seconds:
        for n, took in seconds.items():
            emit("speed-up", n=n, times=round(seconds[1] / took, 3), per_worker=round(seconds[1] / took / n, 3))


if __name__ == "__main__":
    main()
