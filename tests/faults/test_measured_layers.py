"""Importance matrices and comparisons: killed anywhere they come out the same in the end, and a kill costs one layer at most."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from streamconv.evaluation.keeping import Kept
from streamconv.evaluation.walk import Walk

from .injector import Fault, killed_after, run
from .jobs import SOAK

SLOW = pytest.mark.slow
WORDS = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
#: kind of job -> how it begins, and the name of what is made; a comparison only prints
KINDS = {"gguf": "m.gguf", "dat": "m.dat", "compare": "work"}
Tell = Callable[[str], None]


class Measured:
    """A job of layers, and what should come of it."""

    def __init__(self, folder: Path, model: Path, kind: str, n_threads: int = 1) -> None:
        self.folder, self.out, self.log, self.is_printed = (
            folder,
            folder / KINDS[kind],
            folder / "log",
            kind == "compare",
        )
        text = folder / "text.txt"
        rng = random.Random(1)
        text.write_text(" ".join(rng.choice(WORDS) for _ in range(600)))
        verb = ["imatrix", str(model)]
        if self.is_printed:
            other = folder.with_name(f"{folder.name}.gguf")
            assert run(["convert", str(model), str(other), "--type", "Q4_0", "--quiet"], self.log).code == 0
            verb = ["compare", str(model), str(other), "--json", "--work"]
        self.command = [
            *verb, str(self.out), "--text", str(text), "-c", "32", "--chunks", "36", "--threads", str(n_threads), "--quiet",
        ]  # fmt: skip
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        self.calls, self.right = done.calls, self.result()
        assert self.right
        self.clean()

    def result(self) -> bytes:
        """What was made, or printed; b"" where there is none."""
        if not self.is_printed:
            return self.out.read_bytes() if self.out.exists() else b""
        lines = self.log.read_bytes().splitlines(keepends=True)
        return lines[-1] if lines and lines[-1].startswith(b"{") and lines[-1].endswith(b"}\n") else b""

    def clean(self) -> None:
        for path in (p for p in self.folder.iterdir() if self.out.name in p.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        assert self.result() == self.right
        made = [] if self.is_printed else [self.out.name, f".{self.out.name}.streamconv"]
        assert sorted(p.name for p in self.folder.iterdir()) == sorted(["log", "log.count", "text.txt", *made])
        self.clean()


@pytest.fixture(scope="module", params=["gguf", pytest.param("dat", marks=SLOW), pytest.param("compare", marks=SLOW)])
def measured(request: pytest.FixtureRequest, folder: Path, data: Path) -> Measured:
    place = folder / f"measured-{request.param}"
    place.mkdir()
    return Measured(place, data / "checkpoints" / "mistral-spm" / "hf", request.param)


def _killed_at(measured: Measured, at: int, action: str) -> None:
    assert run(measured.command, measured.log, Fault(at, action)).code in (-9, 0)  # 0: that call fails by itself here
    measured.finish()


@pytest.mark.parametrize("share", [0.55, 0.8])
def test_killed_at_a_write_it_is_the_same_in_the_end(measured: Measured, share: float) -> None:
    _killed_at(measured, int(measured.calls * share), "kill after")


@SLOW
@pytest.mark.parametrize("action", ["kill before", "kill after"])
def test_killed_at_any_write_it_is_the_same_in_the_end(measured: Measured, action: str) -> None:
    for at in range(1, measured.calls + 1, 1 if SOAK else 5):
        _killed_at(measured, at, action)


@SLOW
def test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on(measured: Measured) -> None:
    for at in range(1, measured.calls + 1, 1 if SOAK else 9):
        assert run(measured.command, measured.log, Fault(at, "ENOSPC")).code in (0, 73, 74)
        if not measured.out.exists():
            measured.finish()
        measured.clean()


def _noting(path: Path) -> Callable[[], None]:
    """Lets a child append a line to ``path`` for each layer that it begins, and for each part of what heads say that it commits."""

    def planted() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        layer, said = Walk.layer, Kept.end_pieces

        def noted_layer(walk: Walk, *args: object, **kwargs: object) -> int:
            number = int(walk.states._files[0]._path.stem.removeprefix("data-")) // 2
            os.write(fd, b"%d %d\n" % (number, walk.states.n_layers))
            return layer(walk, *args, **kwargs)  # type: ignore[arg-type]

        def noted_pieces(kept: Kept, part: slice, values: object) -> None:
            said(kept, part, values)  # type: ignore[arg-type]
            os.write(fd, b"said %d\n" % part.start)

        Walk.layer, Kept.end_pieces = noted_layer, noted_pieces  # type: ignore[method-assign, assignment]

    return planted


class Notes:
    """What the runs of one job noted."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0
        path.unlink(missing_ok=True)
        self.begun: list[list[tuple[int, int]]] = []
        self.said: list[str] = []

    def take(self) -> None:
        """Take in what one more run noted."""
        text = self.path.read_text() if self.path.exists() else ""
        lines, self._read = text[self._read :].splitlines(), len(text)
        self.said += [line for line in lines if line.startswith("said")]
        pairs = (line.split() for line in lines if not line.startswith("said"))
        self.begun.append([(int(model), int(layer)) for model, layer in pairs])

    def lost(self) -> int:
        """Layers that were begun more than once: the one that was being made when a run was killed, no other."""
        runs = [run for run in self.begun if run]
        for before, after in pairwise(runs):
            assert after[0] >= before[-1], (before, after)
        every = [layer for run in runs for layer in run]
        assert len(set(self.said)) == len(self.said)
        return len(every) - len(set(every))


@pytest.mark.parametrize("kind", ["gguf", "compare"])
@pytest.mark.parametrize("kills", [pytest.param(3, marks=SLOW), pytest.param(50, marks=pytest.mark.soak)])
def test_kills_at_random_moments_cost_one_layer_each_at_most(
    folder: Path, tiny_model: Path, kind: str, kills: int, seed: int, tell: Tell
) -> None:
    place, rng = folder / f"killed-{kind}-{kills}", random.Random(f"{seed} {kind}")
    place.mkdir()
    job = Measured(place, tiny_model, kind, n_threads=2)
    began = time.monotonic()
    assert run(job.command, job.log).code == 0
    whole = time.monotonic() - began
    job.clean()
    count = n_jobs = n_lost = n_begun = n_layers = 0
    while count < kills:
        notes, code, n_killed = Notes(folder / "layers"), None, 0
        while code is None and not (job.is_printed and n_killed and job.result()):  # it has told all when it was killed
            job.log.write_bytes(b"")
            code = killed_after(rng.uniform(0, 1.2 * whole), job.command, job.log, _noting(notes.path))
            n_killed += code is None
            notes.take()
        assert code in (0, None), job.log.read_text()
        assert job.result() == job.right
        assert notes.lost() <= n_killed
        n_layers = len({layer for run in notes.begun for layer in run})
        n_lost, n_begun = n_lost + notes.lost(), n_begun + sum(map(len, notes.begun))
        count, n_jobs = count + n_killed, n_jobs + 1
        job.clean()
    assert n_layers == (12 if job.is_printed else 6)
    tell(
        f"{count} kills at random moments of {n_jobs} jobs of {n_layers} layers ({kind}): 0 wrong, {n_lost} layers made again,"
        f" {n_begun} begun in all, seed {seed}"
    )
