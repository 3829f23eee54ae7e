"""Small jobs on a fast disk, which commit often."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streamconv.conversion import execution

from . import jobs


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: no fault here depends on what the folder lies on."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="streamconv-", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def models(folder: Path) -> Path:
    """What the jobs are made of; see ``jobs.sources``."""
    (folder / "models").mkdir()
    return jobs.sources(folder / "models")


@pytest.fixture(scope="module", autouse=True)
def _often() -> Iterator[None]:
    """Let small jobs commit many times."""
    real = execution.budget_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "budget_of", lambda *args: replace(real(*args), window_bytes=jobs.WINDOW))
        yield


@pytest.fixture(scope="session")
def bench_of(folder: Path, models: Path) -> Callable[[str], jobs.Bench]:
    """Function that gives the ``Bench`` of a kind of job."""
    found: dict[str, jobs.Bench] = {}

    def get(kind: str) -> jobs.Bench:
        if kind not in found:
            found[kind] = jobs.Bench(folder / kind, models, kind)
        found[kind].clean()
        return found[kind]

    return get


@pytest.fixture
def bench(request: pytest.FixtureRequest, bench_of: Callable[[str], jobs.Bench]) -> jobs.Bench:
    """The job of the kind that the test is parametrized with, one file by default."""
    return bench_of(getattr(request, "param", "one file"))
