"""Death at random moments, signals, and several jobs on one target: one right result, and nothing committed is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from streamconv.engine import files

from .injector import at_once, killed_after, signalled_after
from .jobs import KINDS, SOAK, Bench, contents

SLOW = pytest.mark.slow
Tell = Callable[[str], None]


def kills_of(kind: str, quick: int, slow: int) -> list[object]:
    return [
        *([pytest.param(kind, quick, id=f"{kind}-some")] if kind in ("one file", "merge") else []),
        pytest.param(kind, SOAK * 2 // 10 if SOAK else slow, marks=SLOW, id=f"{kind}-many"),
    ]


@pytest.mark.parametrize(("bench", "kills"), [p for kind in KINDS for p in kills_of(kind, 6, 20)], indirect=["bench"])
def test_kills_at_random_moments_lose_nothing_that_was_committed(
    bench: Bench, kills: int, seed: int, tell: Tell
) -> None:
    rng = random.Random(f"{seed} {bench.kind}")
    whole = min(_seconds(bench) for _ in range(3))
    count, n_jobs, kept = 0, 0, 0
    while count < kills:
        bench.clean()
        n_jobs += 1
        where = f"{bench.kind}, seed {seed}, job {n_jobs}"
        code, committed = None, {}
        while code is None:
            code = killed_after(rng.uniform(0, 1.2 * whole), bench.command, bench.log)
            count += code is None
            now = {s.chunk: s.digest for s in bench.commits()}
            # Once the index is gone, the output is there.
            assert committed.items() <= now.items() or not (bench.job / "index.wal").exists(), f"{where}: lost"
            assert bench.violations(where) == []
            kept += len(now.keys() - committed.keys())
            committed = now
        assert code == 0, f"{where}: {bench.log.read_text()}"
        assert contents(bench.root) == bench.right, where
    tell(
        f"{count} kills at random moments of {n_jobs} jobs ({bench.kind}): 0 wrong, 0 of {kept} commits lost, seed {seed}"
    )


def _seconds(bench: Bench) -> float:
    bench.clean()
    began = time.monotonic()
    assert killed_after(60, bench.command, bench.log) == 0
    return time.monotonic() - began


def _locks_do_nothing() -> None:
    files.lock_exclusively = lambda fd: True  # as on some network filesystems


@pytest.mark.parametrize("n_jobs", [2, 8])
@pytest.mark.parametrize("races", [1, pytest.param(SOAK // 10 or 5, marks=SLOW)])
def test_of_several_jobs_on_one_target_one_publishes_and_the_others_step_back(
    bench: Bench, n_jobs: int, races: int, tell: Tell
) -> None:
    stepped_back = 0
    for race in range(races):
        codes, made = _race(bench, n_jobs, None)
        assert set(codes) <= {0, 75}, (race, codes)
        assert made == 1, (race, codes)
        assert contents(bench.root) == bench.right, (race, codes)
        stepped_back += codes.count(75)
    tell(f"{races} races of {n_jobs} jobs: one published each time, 0 wrong, {stepped_back} stepped back")


@pytest.mark.parametrize("n_jobs", [2, 8])
@pytest.mark.parametrize("races", [1, pytest.param(SOAK // 10 or 5, marks=SLOW)])
def test_where_locks_do_nothing_the_last_to_take_the_job_over_publishes_and_the_others_notice(
    bench: Bench, n_jobs: int, races: int, tell: Tell
) -> None:
    for race in range(races):
        codes, made = _race(bench, n_jobs, _locks_do_nothing)
        assert set(codes) <= {0, 75}, (race, codes)
        assert made == 1, (race, codes)
        assert contents(bench.root) == bench.right, (race, codes)
    tell(f"{races} races of {n_jobs} jobs, locks doing nothing: one published each time, 0 wrong")


def _race(bench: Bench, n_jobs: int, planted: Callable[[], None] | None) -> tuple[list[int], int]:
    """Exit codes, and how many of the jobs published."""
    bench.clean()
    logs = [bench.log.with_name(f"log-{k}") for k in range(n_jobs)]
    codes = at_once(bench.command, logs, planted)
    ends = [(code, log.read_text()) for code, log in zip(codes, logs, strict=True)]
    bugs = [text for code, text in ends if "Traceback" in text or code not in (0, 75)]
    assert not bugs, bugs
    return codes, sum(code == 0 and "is already complete" not in text for code, text in ends)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("rounds", [1, pytest.param(SOAK * 70 // 1000 or 4, marks=SLOW)])
def test_a_signal_stops_the_job_in_order_and_it_can_go_on(
    bench: Bench, signum: int, rounds: int, seed: int, tell: Tell
) -> None:
    rng = random.Random(f"{seed} {signum}")
    whole, slowest, stopped = min(_seconds(bench) for _ in range(3)), 0.0, 0
    for _ in range(rounds):
        bench.clean()
        code, seconds = signalled_after(rng.uniform(0.2, 1) * whole, signum, bench.command, bench.log)
        slowest = max(slowest, seconds)
        # Before the handlers are in place the default action ends it; when it was done already it exits 0.
        assert code in (-signum, 0), bench.log.read_text()
        assert "Traceback" not in bench.log.read_text()
        stopped += "stopped by" in bench.log.read_text()
        assert bench.violations("after a signal") + bench.finish("after a signal") == []
    assert slowest < 5
    name = signal.Signals(signum).name
    tell(f"{rounds} times {name}: 0 wrong, {stopped} stopped in order, within {slowest:.2f} s, seed {seed}")
