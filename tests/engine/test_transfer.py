"""The local side of a remote file: what is durable when."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamconv.engine import files
from streamconv.engine.index_file import read_progress
from streamconv.engine.transfer.part import CLAIMED, PENDING, READY, Filling, Part
from streamconv.engine.transfer.remote import Hash
from streamconv.engine.transfer.shared import Settings, Shared
from streamconv.engine.transfer.verifier import Verifier
from streamconv.errors import Locked, WriteFailed


@dataclass(frozen=True)
class Listed:
    path: str = "model.safetensors"
    size: int = 1000
    key: str = "ab" * 32
    digest: str = "sha256 " + "ab" * 32

    def new_hash(self) -> Hash:
        return hashlib.sha256()


def test_the_name_of_a_new_part_is_durable_before_a_range_is_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    synced: list[list[str]] = []
    real = files.sync_dir

    def sync_dir(path: Path) -> None:
        real(path)
        if path == tmp_path / "blobs":
            synced.append([p.suffix for p in path.iterdir()])

    monkeypatch.setattr(files, "sync_dir", sync_dir)
    Part(tmp_path, Listed(), 100, 400).begin()
    assert ".part" in synced[-1]


def test_after_one_failed_barrier_no_range_of_the_file_is_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part(tmp_path, Listed(), 100, 400)
    (tmp_path / "blobs").mkdir()
    part.begin()
    ranges = [Filling(part, i) for i in range(2)]
    for filling in ranges:
        filling.put(filling.at, memoryview(bytes(filling.stop - filling.at)))
    real, calls = files.sync_data, []

    def fails_once(fd: int, path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise WriteFailed("lost")
        real(fd, path)

    monkeypatch.setattr(files, "sync_data", fails_once)
    for filling in ranges:  # the system tells of lost bytes once, also of those of other threads
        with pytest.raises(WriteFailed):
            part.commit(filling.commit_record())
    assert part.digests == {}


def test_no_range_is_stamped_for_a_file_that_lost_its_name(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    part = Part(tmp_path, Listed(), 100, 400)
    part.begin()
    filling = Filling(part, 0)
    filling.put(0, memoryview(bytes(filling.stop)))
    part.path.unlink()
    part.path.write_bytes(bytes(1000))  # by whoever took it over where locks do nothing
    with pytest.raises(Locked, match="has taken over"):
        part.commit(filling.commit_record())
    found = read_progress(part.path.with_suffix(".wal"))
    assert found is not None
    assert found.commits == []


def test_indexes_that_killed_runs_left_half_made_do_not_pile_up(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    part = Part(tmp_path, Listed(), 100, 400)
    index = part.path.with_suffix(".wal")
    index.with_name(f"{index.name}.0123456789abcdef.tmp").write_bytes(b"half")
    part.begin()
    assert sorted(p.name for p in index.parent.iterdir()) == sorted([part.path.name, index.name])


def test_who_reads_what_is_here_does_not_take_the_file_from_who_begins_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    Part(tmp_path, Listed(), 100, 400).begin()
    part, real = Part(tmp_path, Listed(), 100, 400), os.open
    writer = threading.Thread(target=part.begin)

    def slowly(path: Path, flags: int, *mode: int) -> int:
        fd = real(path, flags, *mode)
        if path == part.path and not flags & os.O_RDWR:
            writer.start()
            writer.join(0.2)
        return fd

    monkeypatch.setattr(os, "open", slowly)
    assert b"".join(part.read(0)) == bytes(100)
    writer.join()
    part.reserve()
    part.write(0, memoryview(b"written"))


class _Nobody:
    """Origin and observer of a transfer that fetches nothing."""

    def read(self, remote: Any, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        raise NotImplementedError

    def abort(self) -> None: ...

    def received(self, n_bytes: int, path: str) -> None: ...

    def message(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("state", "gives_up"), [(PENDING, True), (CLAIMED, False), (READY, False)], ids=["in the queue", "coming", "here"]
)
def test_a_digest_is_given_up_only_where_it_waits_for_what_is_not_coming(
    tmp_path: Path, state: int, gives_up: bool
) -> None:
    shared = Shared(_Nobody(), _Nobody(), Settings(keep=False, ahead_bytes=400))
    part = Part(tmp_path, Listed(), 100, 400)
    shared.parts.append(part)
    verifier = Verifier(shared, lambda part, indexes: None, lambda part: None)
    with shared.changed:
        verifier.start_releasing()
        part.states[:] = bytes([state, READY, READY])
        verifier.claim(part, 0)
        assert verifier._unused(part) == ([1, 2] if gives_up else [])
    assert bool(part.notes) == gives_up
    assert verifier.has_summed(part, 0) == gives_up
