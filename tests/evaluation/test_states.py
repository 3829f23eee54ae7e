"""Hidden states in two files by turns, and what is left of them when a run is killed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from streamconv.engine import files
from streamconv.errors import WriteFailed
from streamconv.evaluation.states import States, states_bytes

SHAPE = (3, 8, 5)
JOB = bytes(range(32))


def _open(folder: Path, job: bytes = JOB) -> States:
    return States([folder / "a", folder / "b"], SHAPE, job)


def _gone_through(folder: Path, n_layers: int) -> States:
    states = _open(folder)
    for n in range(n_layers + 1):
        states.following[...] = n
        states.filled()
    return states


def test_nothing_is_restored_where_there_is_nothing(tmp_path: Path) -> None:
    states = _open(tmp_path)
    assert (states.restore(9), states.n_layers) == (-1, -1)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == states_bytes(SHAPE)


def test_the_newest_states_are_taken_up_and_the_next_go_to_the_other_file(tmp_path: Path) -> None:
    _gone_through(tmp_path, 3).close()
    states = _open(tmp_path)
    assert states.restore(3) == 3
    assert (states.current == 3).all()
    assert (states.following == 2).all()


def test_states_of_more_layers_than_wanted_give_way_to_those_before(tmp_path: Path) -> None:
    _gone_through(tmp_path, 3).close()
    states = _open(tmp_path)
    assert states.restore(2) == 2
    assert (states.current == 2).all()
    assert _open(tmp_path).restore(1) == -1


def test_states_that_were_being_written_or_are_damaged_do_not_count(tmp_path: Path) -> None:
    states = _gone_through(tmp_path, 3)
    states.following[1, 2, 3] = 7  # the next layer has begun
    states.close()
    assert _open(tmp_path).restore(9) == 3
    with (tmp_path / "a").open("r+b") as file:  # states of 3 layers
        file.seek(4200)
        file.write(b"x")
    assert _open(tmp_path).restore(9) == -1


def test_states_of_another_job_do_not_count(tmp_path: Path) -> None:
    _gone_through(tmp_path, 1).close()
    assert _open(tmp_path, bytes(32)).restore(9) == -1


def test_a_stamp_that_is_torn_does_not_count(tmp_path: Path) -> None:
    _gone_through(tmp_path, 1).close()
    with (tmp_path / "a").open("r+b") as file:
        file.seek(20)
        file.write(b"torn")
    assert _open(tmp_path).restore(9) == 0


def test_states_are_durable_before_the_stamp_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = _open(tmp_path)
    states.following[...] = 1

    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(WriteFailed, match="did not confirm"):
        states.filled()
    assert states.n_layers == -1
    assert _open(tmp_path).restore(9) == -1


def test_settled_states_give_the_disk_space_of_the_other_file_back(tmp_path: Path) -> None:
    states = _gone_through(tmp_path, 2)
    for path in tmp_path.iterdir():
        path.unlink()
    before = _open_files(tmp_path)
    states.settle()
    assert (states.current == 2).all()
    assert before == {"a", "b"}
    assert _open_files(tmp_path) == {"b"}


def _open_files(folder: Path) -> set[str]:
    """Names, which are gone, of the files in ``folder`` that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            path = Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)"))
            found |= {path.name} if path.parent == folder else set()
    return found


def test_that_the_files_are_there_is_durable_where_states_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_dir", lambda folder: synced.append(folder))
    States([tmp_path / "c", tmp_path / "d"], SHAPE, JOB, durable=False)
    assert not synced
    _open(tmp_path)
    assert synced == [tmp_path]
