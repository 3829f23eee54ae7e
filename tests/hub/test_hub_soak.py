"""Jobs that fetch, killed again and again at random moments: nothing committed is asked for again, the result is right.

STREAMCONV_SOAK=1000 pytest tests/hub/test_hub_soak.py -m soak -s      that many kills
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
from hub_cases import MODEL, WEIGHTS, Run, tensor_bytes
from server import Ask, Cut, Fault, Hub, Slow, Status

from streamconv import cli
from streamconv.engine.journal import read_progress
from streamconv.engine.transfer.part import Cut as Ranges

HEAD, STEP = 64 << 10, 256 << 10


def killed_after(seconds: float, argv: list[str], log: Path) -> int | None:
    """Run ``argv`` in a child and kill it; its exit code when it was done before. Imports are warm, so it starts at once."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking beside the server's threads: the child has none
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            out = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            code = cli.main(argv)
            sys.stderr.flush()
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def committed(cache: Path, size: int) -> list[tuple[int, int]]:
    """Byte ranges of the weights that the index vouches for; all of them when the file is whole."""
    for index in cache.glob("*/blobs/*.wal"):
        found = read_progress(index)
        if (
            found is not None
            and index.with_suffix(".part").exists()
            and index.with_suffix(".part").stat().st_size == size
        ):
            ranges = Ranges(size, HEAD, STEP)
            return [ranges.span(stamp.chunk) for stamp in found[1]]
    whole = [p for p in cache.glob("*/blobs/*") if p.suffix == "" and p.stat().st_size == size]
    return [(0, size)] if whole else []


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> int:
    return sum(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)


@pytest.mark.parametrize(
    "kills", [8, pytest.param(int(os.environ.get("STREAMCONV_SOAK", "200")), marks=pytest.mark.soak)]
)
def test_kills_lose_nothing_that_was_committed(
    hub: Hub, here: Run, tmp_path: Path, cache: Path, expected: bytes, kills: int
) -> None:
    seed = int(os.environ.get("STREAMCONV_SEED", "7" if kills == 8 else str(random.randrange(1 << 30))))
    rng = random.Random(seed)
    size = next(iter(hub.models[MODEL].values()))[WEIGHTS].size
    here("convert", MODEL, tmp_path / "warm.gguf", "--type", "q8_0")
    count, jobs, asked_again = 0, 0, 0
    while count < kills:
        jobs += 1
        shutil.rmtree(cache)
        hub.forget()
        evict = rng.random() < 0.5
        trouble = rng.random() < 0.5

        def fault(ask: Ask, trouble: bool = trouble) -> Fault | None:
            if trouble and not ask.at_hub and rng.random() < 0.1:
                return rng.choice([Cut(rng.randrange(1 << 20)), Status(503), Status(429, {"Retry-After": "0"})])
            return Slow(3e6) if ask.path == WEIGHTS else None

        hub.fault = fault
        argv = ["convert", MODEL, str(tmp_path / "x.gguf"), "--type", "q8_0", "--chunk-size", "128KiB", "--ram", "8MiB"]
        argv += ["--evict"] if evict else []
        where = f"seed {seed}, job {jobs}{' --evict' if evict else ''}"
        code: int | None = None
        while code is None:
            before = committed(cache, size)
            hub.served.clear()
            code = killed_after(rng.uniform(0.05, 1.5), argv, tmp_path / "log")
            count += code is None
            hub.wait_until_quiet()  # answers are counted when they end
            again = overlap(before, hub.served.get(WEIGHTS, [])) if not evict else 0
            asked_again += again
            assert again == 0, f"{where}: {again} committed bytes were asked for again"
        assert code == 0, f"{where}: {(tmp_path / 'log').read_text()}"
        assert tensor_bytes(tmp_path / "x.gguf") == expected, where
        hub.served.clear()
        hub.requests.clear()
        assert killed_after(60, argv, tmp_path / "log") == 0
        assert hub.requests == [], where
        (tmp_path / "x.gguf").unlink()
    print(f"\n{count} kills over {jobs} jobs, {asked_again} bytes asked for again, seed {seed}")
