"""A process that is a worker in one test is none in the next."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import runs
from nursery import Nursery

from streamconv.cluster import dispatcher


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dispatcher, "_STALE_SECONDS", 0.0)
    folder = os.getcwd()
    runs.forget_jobs()
    yield
    runs.forget_jobs()
    os.chdir(folder)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()
