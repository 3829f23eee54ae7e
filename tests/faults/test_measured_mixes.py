"""Mixes for a size: killed anywhere the list comes out the same in the end, and a kill costs one step of the work at most."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamconv.sizing.course import Course
from streamconv.sizing.records import Records

from .injector import Fault, killed_after, run
from .jobs import SOAK

SLOW = pytest.mark.slow
WORDS = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]


class Mixed:
    """A mix, or a conversion to a size, and what should come of it."""

    def __init__(self, folder: Path, model: Path, kind: str) -> None:
        self.folder, self.log = folder, folder / "log"
        self.list = folder / ("types.txt" if kind == "mix" else "out.gguf.types")
        self.made = [self.list] if kind == "mix" else [folder / "out.gguf", self.list]
        text = folder / "text.txt"
        rng = random.Random(1)
        text.write_text(" ".join(rng.choice(WORDS) for _ in range(2400)))
        self.command = [
            kind, str(model), str(self.made[0]), "--size", "125000", "--text", str(text), "--threads", "2", "--quiet",
        ]  # fmt: skip
        if kind == "mix":
            self.command += ["-c", "32", "--chunks", "36"]
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        self.calls, self.right = done.calls, self.result()
        self.clean()

    def result(self) -> list[bytes]:
        """What was made."""
        return [path.read_bytes() for path in self.made if path.exists()]

    def clean(self) -> None:
        for path in (p for p in self.folder.iterdir() if p.name not in ("text.txt", "log")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        assert self.result() == self.right
        others = {p.name for p in self.folder.iterdir()} - {p.name for p in self.made}
        assert others <= {"log", "log.count", "text.txt", ".out.gguf.streamconv"}
        self.clean()


def _noting(path: Path) -> Callable[[], None]:
    """Lets a child append a line to ``path`` for each step that it has committed, and for each layer that it begins."""

    def planted() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"run\n")
        commit, layer = Records.commit, Course.layer

        def committed(self: Records, name: str, values: object) -> None:
            commit(self, name, values)  # type: ignore[arg-type]
            os.write(fd, f"step {name}\n".encode())

        def begun(self: Course, number: int, tasks: object) -> None:
            steps = [step.name for step in self.records._steps if step.name.startswith(("costs", "comparison"))]
            now = next(name for name in steps if self.records.of(name) is None)
            os.write(fd, f"layer {number} for {now}\n".encode())
            layer(self, number, tasks)  # type: ignore[arg-type]

        Records.commit, Course.layer = committed, begun  # type: ignore[method-assign, assignment]

    return planted


def _made_again(path: Path) -> int:
    """Layers that were begun in more than one run; no step was committed twice."""
    runs = [part.splitlines() for part in path.read_text().split("run\n")[1:]]
    steps = [line for lines in runs for line in lines if line.startswith("step")]
    assert len(steps) == len(set(steps))
    layers = [line for lines in runs for line in set(lines) if line.startswith("layer")]
    assert layers
    return len(layers) - len(set(layers))


def _mixed(folder: Path, data: Path, kind: str) -> Mixed:
    place = folder / f"mixed-{kind}"
    place.mkdir(exist_ok=True)
    return Mixed(place, data / "checkpoints" / "mistral-spm" / "hf", kind)


@SLOW
@pytest.mark.parametrize("kind", ["mix", "convert"])
def test_killed_at_a_write_the_list_is_the_same_in_the_end(folder: Path, data: Path, kind: str) -> None:
    mixed = _mixed(folder, data, kind)
    for at in range(1, mixed.calls + 1, 1 if SOAK else mixed.calls // 3):
        assert run(mixed.command, mixed.log, Fault(at, "kill after")).code in (
            -9,
            0,
        )  # 0: that call fails by itself here
        mixed.finish()


@pytest.mark.parametrize("kind", ["mix", "convert"])
@pytest.mark.parametrize("kills", [pytest.param(3, marks=SLOW), pytest.param(50, marks=pytest.mark.soak)])
def test_kills_at_random_moments_cost_one_layer_each_at_most(
    folder: Path, data: Path, kind: str, kills: int, seed: int, tell: Callable[[str], None]
) -> None:
    mixed, rng, notes = _mixed(folder, data, kind), random.Random(f"{seed} {kind}"), folder / "noted"
    began = time.monotonic()
    assert run(mixed.command, mixed.log).code == 0
    whole = time.monotonic() - began
    mixed.clean()
    count = n_jobs = n_again = 0
    while count < kills:
        notes.unlink(missing_ok=True)
        code, n_killed = None, 0
        while code is None:
            code = killed_after(rng.uniform(0, whole), mixed.command, mixed.log, _noting(notes))
            n_killed += code is None
        assert code == 0, mixed.log.read_text()
        again = _made_again(notes)
        assert again <= n_killed
        count, n_jobs, n_again = count + n_killed, n_jobs + 1, n_again + again
        mixed.finish()
    tell(
        f"{count} kills at random moments of {n_jobs} runs of {kind}: 0 wrong, {n_again} layers made again, seed {seed}"
    )
