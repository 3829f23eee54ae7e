"""Importance matrices: killed anywhere they are whole in the end, and a kill costs one layer at most."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from streamconv.conversion import Options
from streamconv.evaluation import Request, prepare_imatrix, write_imatrix
from streamconv.evaluation.walk import Walk
from streamconv.progress import Silent

from .injector import Fault, killed_after, run
from .jobs import SOAK

N_LAYERS = 2


class Matrix:
    """An importance matrix to be made, and what it should be."""

    def __init__(self, folder: Path, model: Path, ending: str) -> None:
        self.folder, self.out, self.log = folder, folder / f"m.{ending}", folder / "log"
        self.text = folder / "text.txt"
        words = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
        rng = random.Random(1)
        self.text.write_text(" ".join(rng.choice(words) for _ in range(300)))
        self.command = [
            "imatrix", str(model), str(self.out), "--text", str(self.text), "-c", "32", "--chunks", "18", "--threads", "1",
        ]  # fmt: skip
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        self.calls, self.right = done.calls, self.out.read_bytes()
        self.clean()

    def clean(self) -> None:
        for path in self.folder.glob("*m.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        done = run(self.command, self.log)
        assert done.code == 0, done.stderr
        assert self.out.read_bytes() == self.right
        assert sorted(p.name for p in self.folder.iterdir()) == sorted(
            ["log", "log.count", "text.txt", self.out.name, f".{self.out.name}.streamconv"]
        )
        self.clean()


@pytest.fixture(scope="module", params=["gguf", pytest.param("dat", marks=pytest.mark.slow)])
def matrix(request: pytest.FixtureRequest, folder: Path, data: Path) -> Matrix:
    place = folder / f"measured-{request.param}"
    place.mkdir()
    return Matrix(place, data / "checkpoints" / "mistral-spm" / "hf", request.param)


def _killed_at(matrix: Matrix, at: int, action: str) -> None:
    assert run(matrix.command, matrix.log, Fault(at, action)).code in (-9, 0)  # 0: that call fails by itself here
    matrix.finish()


@pytest.mark.parametrize("share", [0.55, 0.8])
def test_killed_at_a_write_the_matrix_is_the_same_in_the_end(matrix: Matrix, share: float) -> None:
    _killed_at(matrix, int(matrix.calls * share), "kill after")


@pytest.mark.slow
@pytest.mark.parametrize("action", ["kill before", "kill after"])
def test_killed_at_any_write_the_matrix_is_the_same_in_the_end(matrix: Matrix, action: str) -> None:
    for at in range(1, matrix.calls + 1, 1 if SOAK else 5):
        _killed_at(matrix, at, action)


@pytest.mark.slow
def test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on(matrix: Matrix) -> None:
    for at in range(1, matrix.calls + 1, 1 if SOAK else 9):
        assert run(matrix.command, matrix.log, Fault(at, "ENOSPC")).code in (0, 73, 74)
        if not matrix.out.exists():
            matrix.finish()
        matrix.clean()


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(matrix: Matrix, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50 if SOAK else 10):
        code = killed_after(rng.uniform(0, 0.5), matrix.command, matrix.log)
        assert code in (None, 0)
        if code == 0:
            assert matrix.out.read_bytes() == matrix.right
            matrix.clean()
    matrix.finish()


def test_a_kill_costs_one_layer_at_most(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    real = Walk.layer

    def counted(walk: Walk, *args: object, **kwargs: object) -> int:
        begun.append(walk.states.n_layers)
        return real(walk, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Walk, "layer", counted)
    model, options = matrix.command[1], Options(threads=1)
    request = Request(matrix.text, 32, 18)
    commits = [at for at in range(1, matrix.calls + 1) if at % 7 == 0]
    for at in commits[len(commits) // 2 :][:1]:
        run(matrix.command, matrix.log, Fault(at, "kill after"))
        begun.clear()
        found = write_imatrix(prepare_imatrix(model, matrix.out, request, options), options, Silent())
        assert found is None or begun == list(range(N_LAYERS - len(begun), N_LAYERS))
        assert matrix.out.read_bytes() == matrix.right
        matrix.clean()
