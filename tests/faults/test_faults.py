"""Kills, I/O errors, full disks, lost power and bit rot: the result is always the uninterrupted one, or an honest error."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamconv.engine import files, job, run
from streamconv.engine.plan import Plan

from .injector import Fault, false_stamps, flip
from .injector import run as forked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork in a process that pytest made threads in

SLOW = pytest.mark.slow
#: STREAMCONV_ALL_FAULTS=1 visits every write call instead of every few; it takes most of an hour.
ALL = bool(os.environ.get("STREAMCONV_ALL_FAULTS"))
EVERY = pytest.param(1 if ALL else 19, marks=SLOW)
MANY = pytest.param(300 if ALL else 12, marks=SLOW)


class Bench:
    """One small conversion, its command and its right answer."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.out = folder / "out.gguf"
        whole = forked(self.command(folder / "whole.gguf"), folder / "log")
        assert whole.code == 0, whole.stderr
        self.calls = whole.calls
        self.right = self.digest(folder / "whole.gguf")

    def command(self, out: Path | None = None, type_: str = "BF16") -> list[str]:
        return [
            "convert",
            str(self.model),
            str(out or self.out),
            "--type",
            type_,
            "--chunk-size",
            "256KiB",
            "--threads",
            "1",
        ]

    @staticmethod
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def clean(self) -> None:
        self.out.unlink(missing_ok=True)
        if (self.folder / "out.gguf.streamconv").exists():
            files.remove_tree(self.folder / "out.gguf.streamconv")

    def go(self, fault: Fault = Fault(), planted: Callable[[], None] | None = None) -> tuple[int, str]:  # noqa: B008
        r = forked(self.command(), self.folder / "log", fault, planted)
        return r.code, r.stderr

    def violations(self, where: str) -> list[str]:
        """What is wrong now, right after a fault."""
        found = [f"{where}: chunk {c} is stamped over wrong bytes" for c in false_stamps(self.out)]
        if self.out.exists() and self.digest(self.out) != self.right:
            found.append(f"{where}: a wrong file stands under the final name")
        return found

    def finish(self, where: str) -> list[str]:
        """Run again without a fault; what is wrong then."""
        code, text = self.go()
        if code or not self.out.exists() or self.digest(self.out) != self.right:
            return [f"{where}: the next run ended with {code}, result wrong: {text[-300:]}"]
        left = [p.name for p in self.folder.iterdir() if p.name.startswith("out.gguf.")]
        return [f"{where}: {left} is left over"] if left else []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"), tiny_model)


def kills(bench: Bench, step: int, power_loss: bool, planted: Callable[[], None] | None = None) -> list[str]:
    found: list[str] = []
    for at in range(1, bench.calls + 1, step):
        for action in ("kill before", "kill after"):
            bench.clean()
            where = f"{action} write call {at}{' with power loss' if power_loss else ''}"
            code, _ = bench.go(Fault(at, action, power_loss=power_loss), planted)
            if code != -signal.SIGKILL and code != 0:
                found.append(f"{where}: exit {code}")
            found += bench.violations(where)
            if planted is None:
                found += bench.finish(where)
    return found


@pytest.mark.parametrize("step", [67, EVERY])
@pytest.mark.parametrize("power_loss", [False, True])
def test_a_kill_at_any_write_call_costs_work_at_most(bench: Bench, step: int, power_loss: bool) -> None:
    assert kills(bench, step, power_loss) == []


@pytest.mark.parametrize("step", [97, EVERY])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("sticky", [False, True])
def test_an_error_of_any_write_call_is_reported_and_stamps_nothing_false(
    bench: Bench, step: int, error: str, sticky: bool
) -> None:
    found = []
    for at in range(1, bench.calls + 1, step):
        bench.clean()
        where = f"{error} at write call {at}, sticky={sticky}"
        code, text = bench.go(Fault(at, error, sticky))
        finished = bench.out.exists()
        if (code not in (73, 74) and not (finished and code in (0, 74))) or "Traceback" in text:
            found.append(f"{where}: exit {code}: {text[-200:]}")
        found += bench.violations(where) + bench.finish(where)
    assert found == []


@pytest.mark.parametrize("step", [101, EVERY])
def test_short_writes_are_completed(bench: Bench, step: int) -> None:
    for at in range(1, bench.calls + 1, step):
        bench.clean()
        assert bench.go(Fault(at, "short", sticky=True))[0] == 0
        assert bench.violations(f"short writes from call {at}") == []


@pytest.mark.parametrize("steps", [2, pytest.param(50 if ALL else 8, marks=SLOW)])
def test_a_full_filesystem_is_an_error_and_the_job_goes_on_when_it_has_grown(
    bench: Bench, tmp_path: Path, steps: int
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    need = (bench.folder / "whole.gguf").stat().st_size + (64 << 20)  # with the reserve that is asked for
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount a small filesystem here")
    try:
        out = mount / "out.gguf"
        for k in range(1, steps + 1):
            subprocess.run(
                ["mount", "-o", f"remount,size={need * k // (steps + 1) // 1024 + 64}k", str(mount)], check=True
            )
            r = forked(bench.command(out), bench.folder / "log")
            assert r.code in (73, 74), r.stderr
            assert str(mount) in r.stderr
            assert "bytes" in r.stderr
            assert not out.exists()
        subprocess.run(["mount", "-o", f"remount,size={2 * need // 1024}k", str(mount)], check=True)
        assert forked(bench.command(out), bench.folder / "log").code == 0
        assert bench.digest(out) == bench.right
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("trials", [3, MANY])
@pytest.mark.parametrize("name", ["data-1.part", "index.wal", "plan.json"])
def test_rot_in_any_job_file_is_found_or_harmless(bench: Bench, name: str, trials: int) -> None:
    rng = random.Random(name)
    for trial in range(trials):
        bench.clean()
        bench.go(Fault(rng.randrange(bench.calls // 3, bench.calls - 8), "kill before"))
        path = bench.folder / "out.gguf.streamconv" / name
        flip(path, rng)
        assert bench.finish(f"trial {trial} on {name}") == []


def test_another_type_over_an_unfinished_job_is_refused_and_changes_nothing(bench: Bench) -> None:
    bench.clean()
    bench.go(Fault(bench.calls // 2, "kill before"))
    folder = bench.folder / "out.gguf.streamconv"
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}
    r = forked(bench.command(type_="F32"), bench.folder / "log")
    assert r.code == 78, r.stderr
    assert "type: BF16 there, F32 now" in r.stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"} == before
    assert bench.finish("after a refused plan") == []


@pytest.mark.parametrize("jobs", [2, 8])
def test_of_several_jobs_on_one_target_one_publishes_and_the_others_step_back(bench: Bench, jobs: int) -> None:
    bench.clean()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "streamconv", *bench.command()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(jobs)
    ]  # fmt: skip
    codes = []
    for p in running:
        _, text = p.communicate(timeout=120)
        codes.append(p.returncode)
        assert p.returncode in (0, 75), text
    assert 0 in codes
    assert bench.digest(bench.out) == bench.right


@pytest.mark.parametrize("rounds", [1, pytest.param(60 if ALL else 4, marks=SLOW)])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_job_in_order_and_it_can_go_on(bench: Bench, signum: int, rounds: int) -> None:
    rng = random.Random(signum)
    for _ in range(rounds):
        bench.clean()
        p = subprocess.Popen(
            [sys.executable, "-m", "streamconv", *bench.command()], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        time.sleep(rng.uniform(0.2, 0.7))
        p.send_signal(signum)
        began = time.monotonic()
        _, text = p.communicate(timeout=20)
        assert time.monotonic() - began < 5
        # Before the handlers are in place the default action ends it; when it was done already it exits 0.
        assert p.returncode in (-signum, 0), text
        assert b"Traceback" not in text
        assert bench.violations("after a signal") + bench.finish("after a signal") == []


# The suite itself is tested: three classic mistakes, each of which it must report.


def stamp_before_the_data_barrier() -> None:
    real = run._Run._commit

    def wrong(self: run._Run, group: list) -> None:  # type: ignore[type-arg]
        self.job.journal.stamp(group)
        real(self, group)

    run._Run._commit = wrong  # type: ignore[method-assign]


def trust_without_reading() -> None:
    job.Job._digest = lambda self, stamp: stamp.digest  # type: ignore[method-assign]


def rename_before_sync() -> None:
    def wrong(self: job.Job) -> None:
        plan: Plan = self.plan
        files.pwrite_all(self.part_fds[0], plan.files[0].header, 0, self.part_path(0))
        files.publish(self.part_path(0), plan.files[0].path)
        files.sync_data(self.part_fds[0], plan.files[0].path)
        self.discard()

    job.Job.publish = wrong  # type: ignore[method-assign]


@SLOW
@pytest.mark.parametrize("bug", [stamp_before_the_data_barrier, rename_before_sync])
def test_the_suite_catches_a_wrong_order_of_writes(bench: Bench, bug: Callable[[], None]) -> None:
    assert kills(bench, 5, True, planted=bug) != []


def test_the_suite_catches_trust_without_reading(bench: Bench) -> None:
    wrong = 0
    for trial in range(6):
        bench.clean()
        bench.go(Fault(bench.calls * 3 // 4, "kill before"))
        path = bench.folder / "out.gguf.streamconv" / "data-1.part"
        raw = bytearray(path.read_bytes())
        start = len(raw) // 3 + trial
        raw[start] ^= 1
        path.write_bytes(raw)
        bench.go(planted=trust_without_reading)
        wrong += bench.digest(bench.out) != bench.right
    assert wrong > 0
