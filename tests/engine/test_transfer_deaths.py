"""Threads of a transfer that die, cannot be started or do not end: whoever waits for bytes is told, in bounded time."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_deaths import _refuse, _stillborn

from streamconv import threads
from streamconv.engine.transfer import Settings, Transfer, transfer
from streamconv.engine.transfer.remote import Hash
from streamconv.errors import Locked, NoResources

DATA = bytes(range(256)) * 16
SETTINGS = Settings(connections=2, head_bytes=256, range_bytes=1024)


@dataclass(frozen=True)
class Listed:
    path: str = "model.safetensors"
    size: int = len(DATA)
    key: str = hashlib.sha256(DATA).hexdigest()
    digest: str = "sha256 " + key

    def new_hash(self) -> Hash:
        return hashlib.sha256()


class Origin:
    """Serves ``DATA``; ``read`` waits for ``free`` first."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def read(self, remote: Any, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        self.free.wait(20)
        yield start, DATA[start:stop]

    def abort(self) -> None: ...

    def received(self, n_bytes: int, path: str) -> None: ...

    def message(self, text: str) -> None: ...


def begun(root: Path, origin: Origin | None = None) -> tuple[Transfer, transfer.PartialDownload]:
    found = Transfer(root, origin or Origin(), origin or Origin(), SETTINGS)
    return found, found.add("model", "commit", Listed())


def comes_whole(root: Path) -> None:
    """Another transfer of the same file brings it: its lock was given back."""
    following, partial = begun(root)
    following.fetch()
    assert following.wait(seconds=20)
    following.close()
    assert partial.path.read_bytes() == DATA


@pytest.mark.parametrize("dead", [{0, 1}, {2}, {0, 1, 2}], ids=["connections", "verifier", "all"])
@pytest.mark.parametrize("way", ["wait", "ensure"])
def test_whoever_waits_for_dead_threads_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: set[int], way: str
) -> None:
    monkeypatch.setattr(threads, "_LOOK_SECONDS", 0.02)
    broken, partial = begun(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threads._thread, "start_new_thread", _stillborn(dead))
        broken.fetch()
    began = time.monotonic()
    with pytest.raises(NoResources, match="not enough memory"):
        broken.wait()
    if way == "ensure" and 0 in dead:
        with pytest.raises(NoResources):
            partial.ensure(2000, 100)
    broken.close()
    assert time.monotonic() - began < 10
    comes_whole(tmp_path)


def test_a_thread_that_dies_with_a_range_in_its_hands_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        raise MemoryError

    broken, partial = begun(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(transfer.Connections, "_bring", dying)
        patch.setattr(transfer.Transfer, "fail", dying)  # nor can it say so
        broken.fetch()
        with pytest.raises((NoResources, MemoryError)):
            partial.ensure(2000, 100)
        broken.close()
    comes_whole(tmp_path)


def test_a_system_that_grants_too_few_threads_ends_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, _ = begun(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threads._thread, "start_new_thread", _refuse)
        with pytest.raises(NoResources, match="threads"):
            broken.fetch()
    broken.close()
    comes_whole(tmp_path)


def test_a_thread_that_does_not_end_keeps_the_lock_and_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_PATIENCE_SECONDS", 0.3)
    origin = Origin()
    origin.free.clear()
    stuck, _ = begun(tmp_path, origin)
    stuck.fetch()
    time.sleep(0.1)
    began = time.monotonic()
    stuck.close()
    stuck.close()
    assert time.monotonic() - began < 2
    with pytest.raises(Locked):
        begun(tmp_path)[0].fetch()
    origin.free.set()
