"""The seam for all writes: what is reported, what is tolerated, and what two processes may do at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streamconv.engine import files
from streamconv.errors import NoPermission, StreamconvError, WriteFailed


def _raiser(number: int) -> object:
    def call(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_filesystem_that_cannot_sync_folders_can_still_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", _raiser(number))
    files.write_atomically(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_a_folder_whose_sync_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _raiser(errno.EIO))
    with pytest.raises(WriteFailed):
        files.sync_dir(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EDQUOT, errno.ENOSPC, errno.EFBIG, errno.EPERM])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_whatever_fails_once_a_file_is_open_is_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "a"
    fd = files.open_for_writing(path, create=True)
    monkeypatch.setattr(os, call, _raiser(number))
    with pytest.raises(WriteFailed) as caught:
        files.pwrite_all(fd, b"x", 0, path) if call == "pwrite" else files.sync_data(fd, path)
    assert (caught.value.exit_code, caught.value.resumable) == (74, True)
    os.close(fd)


def test_a_name_that_may_not_be_opened_is_a_matter_of_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", _raiser(errno.EROFS))
    with pytest.raises(NoPermission):
        files.open_for_writing(tmp_path / "a", create=True)


def test_two_writers_of_one_small_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a", files.sync_data

    def sync_data(fd: int, at: Path) -> None:
        real(fd, at)
        monkeypatch.setattr(files, "sync_data", real)
        files.write_atomically(path, "the other's")

    monkeypatch.setattr(files, "sync_data", sync_data)
    files.write_atomically(path, "ours")
    assert path.read_text() == "ours"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    files.write_atomically(path, "old")
    monkeypatch.setattr(os, "fdatasync", _raiser(errno.ENOSPC))
    with pytest.raises(StreamconvError):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
