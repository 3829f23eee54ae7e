"""Death, I/O errors, full disks and short writes at every write call: the result is the uninterrupted one, or an honest error."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import Tensors, changed

from .injector import Fault
from .injector import run as forked
from .jobs import ALL, KINDS, Bench, contents

SLOW = pytest.mark.slow
Tell = Callable[[str], None]


def every(quick: int, slow: int) -> list[object]:
    """Steps between the calls that are visited: for all kinds of job when all are, else for one file and a merge."""
    return [
        *(pytest.param(kind, quick, id=f"{kind}-some") for kind in ("one file",)),
        *(pytest.param(kind, 1 if ALL else slow, marks=SLOW, id=f"{kind}-all") for kind in KINDS),
    ]


@pytest.mark.parametrize(("bench", "step"), every(67, 37), indirect=["bench"])
def test_a_kill_at_any_write_call_costs_work_at_most(bench: Bench, step: int, tell: Tell) -> None:
    found, runs = [], 0
    for at in range(1, bench.calls + 1, step):
        for action in ("kill before", "kill after"):
            bench.clean()
            where = f"{bench.kind}, {action} write call {at}"
            code = bench.go(Fault(at, action)).code
            runs += 1
            if code != -signal.SIGKILL and code != 0:
                found.append(f"{where}: exit {code}")
            found += bench.violations(where) + bench.finish(where)
    tell(f"kill before and after {runs // 2} of {bench.calls} write calls of {bench.kind}: {len(found)} wrong")
    assert found == []


@pytest.mark.parametrize(("bench", "step"), every(97, 53), indirect=["bench"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for good"])
def test_an_error_of_any_write_call_is_reported_and_stamps_nothing_false(
    bench: Bench, step: int, error: str, sticky: bool, tell: Tell
) -> None:
    found, runs = [], 0
    for at in range(1, bench.calls + 1, step):
        bench.clean()
        where = f"{bench.kind}, {error} at write call {at}, sticky={sticky}"
        ended = bench.go(Fault(at, error, sticky))
        runs += 1
        finished = all(contents(bench.root).get(name) == digest for name, digest in bench.right.items())
        if (ended.code not in (73, 74) and not (finished and ended.code == 0)) or "Traceback" in ended.stderr:
            found.append(f"{where}: exit {ended.code}: {ended.stderr[-200:]}")
        found += bench.violations(where) + bench.finish(where)
    tell(
        f"{error} {'from' if sticky else 'at'} {runs} of {bench.calls} write calls of {bench.kind}: {len(found)} wrong"
    )
    assert found == []


@pytest.mark.parametrize(("bench", "step"), every(101, 53), indirect=["bench"])
def test_short_writes_are_completed(bench: Bench, step: int, tell: Tell) -> None:
    calls = range(1, bench.calls + 1, step)
    for at in calls:
        bench.clean()
        assert bench.go(Fault(at, "short", sticky=True)).code == 0
        assert contents(bench.root) == bench.right, f"short writes from call {at}"
    tell(f"short writes from {len(calls)} of {bench.calls} calls of {bench.kind}: 0 wrong")


@pytest.mark.parametrize("steps", [2, pytest.param(50 if ALL else 8, marks=SLOW)])
def test_a_full_filesystem_is_an_error_and_the_job_goes_on_when_it_has_grown(
    bench: Bench, tmp_path: Path, steps: int, tell: Tell
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    need = sum(p.stat().st_size for p in _made(bench)) + (64 << 20)  # with the reserve that is asked for
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount a small filesystem here")
    out = mount / "out.gguf"
    command = [str(out) if word == str(bench.out) else word for word in bench.command]
    try:
        for k in range(1, steps + 1):
            size = need * k // (steps + 1) // 1024 + 64
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(mount)], check=True)
            r = forked(command, bench.log)
            assert r.code in (73, 74), r.stderr
            assert str(mount) in r.stderr
            assert "bytes" in r.stderr
            assert not out.exists()
        subprocess.run(["mount", "-o", f"remount,size={2 * need // 1024}k", str(mount)], check=True)
        assert forked(command, bench.log).code == 0
        assert contents(mount) == bench.right
        tell(f"a full filesystem of {steps} sizes: 0 wrong")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _made(bench: Bench) -> list[Path]:
    assert bench.go().code == 0
    return [p for p in bench.root.rglob("*") if p.is_file()]


def test_another_type_over_an_unfinished_job_is_refused_and_changes_nothing(bench: Bench) -> None:
    bench.go(Fault(bench.calls // 2, "kill before"))
    before = {p.name: p.read_bytes() for p in bench.job.iterdir() if p.name != "lock"}
    r = forked([*bench.command, "--type", "F32"], bench.log)
    assert r.code == 78, r.stderr
    assert "type: BF16 there, F32 now" in r.stderr
    assert {p.name: p.read_bytes() for p in bench.job.iterdir() if p.name != "lock"} == before
    assert bench.finish("after a refused plan") == []


@pytest.mark.parametrize(("value", "words"), [(np.nan, "holds nan"), (1e6, "too large for F16")])
def test_what_only_allow_nonfinite_lets_in_is_not_kept_by_a_run_without_it(
    models: Path, tmp_path: Path, value: float, words: str
) -> None:
    def spoilt(tensors: Tensors) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][1][3, 5] = value

    model, out = changed(models / "a", tmp_path / "a", spoilt), tmp_path / "out.gguf"
    command = ["convert", str(model), str(out), "--type", "F16", "--chunk-size", "8KiB", "--threads", "1"]
    refused = forked(command, tmp_path / "log")
    assert refused.code == 65
    assert words in refused.stderr
    allowing = [*command, "--allow-nonfinite"]
    whole = forked(allowing, tmp_path / "log")
    assert whole.code == 0, "what was refused goes on where it stopped"
    assert "were finished by earlier runs" in whole.stderr
    right = out.read_bytes()
    out.unlink()
    calls = forked(allowing, tmp_path / "log").calls
    while out.exists():  # killed too late: how often a run commits depends on the machine
        out.unlink()
        calls -= 1
        forked(allowing, tmp_path / "log", Fault(calls, "kill before"))
    again = forked(command, tmp_path / "log")
    assert again.code == 65
    assert words in again.stderr
    assert forked(allowing, tmp_path / "log").code == 0
    assert out.read_bytes() == right
