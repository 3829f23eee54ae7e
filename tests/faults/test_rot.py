"""Bits that flip and files that are cut while a job is unfinished: found or harmless, and only what was hit is made again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from streamconv.engine import job
from streamconv.sources import open_checkpoint

from .injector import Fault, flip, run
from .jobs import SOAK, Bench

SLOW = pytest.mark.slow
Tell = Callable[[str], None]


def _unfinished(bench: Bench, share: float, copies: dict[float, Path]) -> None:
    """The job as a kill after ``share`` of its write calls leaves it."""
    bench.clean()
    if share not in copies:
        bench.go(Fault(int(bench.calls * share), "kill before"))
        copies[share] = Path(shutil.copytree(bench.root, bench.root.with_name(f"at {share}"), dirs_exist_ok=True))
    shutil.copytree(copies[share], bench.root, dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [4, pytest.param(SOAK or 30, marks=SLOW)])
@pytest.mark.parametrize(("bench", "name"), [
    ("one file", "data-1.part"), ("one file", "index.wal"), ("one file", "plan.json"), ("several types", "data-2.part"),
    ("merge of documents", "index.wal"),
], indirect=["bench"])  # fmt: skip
def test_rot_in_any_job_file_is_found_or_harmless(bench: Bench, name: str, trials: int, seed: int, tell: Tell) -> None:
    rng = random.Random(f"{seed} {name} {bench.kind}")
    copies: dict[float, Path] = {}
    for trial in range(trials):
        _unfinished(bench, rng.choice((0.4, 0.6, 0.8)), copies)
        flip(bench.job / name, rng)
        assert bench.finish(f"{bench.kind}, {name}, trial {trial}, seed {seed}") == []
    tell(f"{trials} flips in {name} of an unfinished job ({bench.kind}): all found or harmless, seed {seed}")


def _killed(models: Path, tmp_path: Path) -> tuple[list[str], Path, Path]:
    """The command of an unfinished job, the weights it reads, its output."""
    model, out = shutil.copytree(models / "a", tmp_path / "a"), tmp_path / "out.gguf"
    command = ["convert", str(model), str(out), "--type", "F32", "--chunk-size", "8KiB", "--threads", "1"]
    calls = run(command, tmp_path / "log").calls
    out.unlink()
    run(command, tmp_path / "log", Fault(calls * 2 // 3, "kill before"))
    return command, model / "model.safetensors", out


def test_an_input_that_was_written_is_noticed_though_the_plan_is_lost(models: Path, tmp_path: Path) -> None:
    command, weights, out = _killed(models, tmp_path)
    (tmp_path / "out.gguf.streamconv" / "plan.json").unlink()
    sampled = _samples(weights.parent)
    at = 8 + int.from_bytes(weights.read_bytes()[:8], "little") + 5500  # between the first two pages that are looked at
    with weights.open("r+b") as file:
        file.seek(at)
        file.write(b"\x11")
    assert _samples(weights.parent) == sampled, "what is sampled has not changed"
    again = run(command, tmp_path / "log")
    assert again.code == 65, again.stderr
    assert f"{weights} was changed after" in again.stderr
    again = run([*command, "--update"], tmp_path / "log")
    assert again.code == 0, again.stderr
    assert "inputs were changed since" in again.stderr
    made = out.read_bytes()
    out.unlink()
    assert run(command, tmp_path / "log").code == 0
    assert out.read_bytes() == made


def test_work_is_kept_when_inputs_come_back_from_an_archive(models: Path, tmp_path: Path) -> None:
    """The same bytes and dates in a new file: what a pipeline's cache restores."""
    command, weights, _ = _killed(models, tmp_path)
    archived = Path(shutil.copy2(weights, tmp_path / "archived"))
    weights.unlink()
    shutil.move(archived, weights)
    weights.chmod(0o444)
    again = run(command, tmp_path / "log")
    assert again.code == 0, again.stderr
    assert "starting over" not in again.stderr
    assert "were finished by earlier runs" in again.stderr


def _samples(model: Path) -> list[object]:
    return [(f.size, f.digest) for f in open_checkpoint(model).inputs]


def trust_without_reading() -> None:
    job.Job._digest = lambda self, commit: commit.digest  # type: ignore[method-assign]


def test_the_suite_catches_trust_without_reading(bench: Bench) -> None:
    wrong, copies = 0, dict[float, Path]()
    for trial in range(6):
        _unfinished(bench, 0.75, copies)
        path = bench.job / "data-1.part"
        raw = bytearray(path.read_bytes())
        raw[bench.commits()[trial].offset + trial] ^= 1
        path.write_bytes(raw)
        bench.go(planted=trust_without_reading)
        wrong += bench.finish("", lambda: (0, "")) != []
    assert wrong > 0
