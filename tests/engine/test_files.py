"""The seam for all writes: what is reported, what is tolerated, and what two processes may do at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import ClassVar

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


@pytest.mark.parametrize("how", ["new", "over", "plain"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(n, 73) for n in (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EISDIR, errno.ELOOP, errno.EMLINK)]
    + [(n, 74) for n in (errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)],
)
def test_a_rename_that_cannot_be_ends_with_73_and_a_disk_that_fails_with_74(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, number: int, code: int
) -> None:
    part, final = tmp_path / "part", tmp_path / "final"
    part.write_text("new")
    if how == "over":
        final.write_text("old")
    refuse = _raiser(number)
    monkeypatch.setattr(files, "rename_with", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    act = {
        "over": lambda: files.publish_over(part, final, os.lstat(final), tmp_path / "aside"),
        "new": lambda: files.publish_new(part, final),
        "plain": lambda: files.publish(part, final),
    }[how]
    with pytest.raises(StreamconvError) as caught:
        act()
    assert (caught.value.exit_code, str(final) in caught.value.message) == (code, True)
    assert part.read_text() == "new"
    assert not final.exists() if how != "over" else final.read_text() == "old"


def test_without_renames_that_exchange_the_old_file_is_back_when_the_new_one_cannot_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, final, real = tmp_path / "part", tmp_path / "final", os.link
    part.write_text("new")
    final.write_text("old")

    def link(old: Path, new: Path) -> None:
        if old == part:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(old, new)

    monkeypatch.setattr(files, "rename_with", lambda flag, old, new: False)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(WriteFailed):
        files.publish_over(part, final, os.lstat(final), tmp_path / "aside")
    assert (part.read_text(), final.read_text(), (tmp_path / "aside").exists()) == ("new", "old", False)


def test_where_a_filesystem_cannot_reserve_a_large_file_is_not_filled_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS before 4.2, where glibc's posix_fallocate would write into every block."""

    def refuse(*_args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    class Counting:
        calls: ClassVar[list[str]] = []

        def __getattr__(self, name: str) -> object:
            if name in ("pwrite", "ftruncate", "posix_fallocate"):
                self.calls.append(name)
            return getattr(os, name)

    path = tmp_path / "large"
    fd = files.open_for_writing(path, create=True)
    monkeypatch.setattr(files, "fallocate", refuse)
    monkeypatch.setattr(files, "os", Counting())
    files.allocate(fd, 2 << 30, path)
    os.close(fd)
    assert (path.stat().st_size, Counting.calls) == (2 << 30, ["ftruncate"])


def test_reserved_space_is_there_and_can_be_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    fd = files.open_for_writing(path, create=True)
    files.allocate(fd, 1 << 20, path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size == 1 << 20
    if files.punch(fd, 0, 1 << 20):
        assert (path.stat().st_size, path.stat().st_blocks) == (1 << 20, 0)
    os.close(fd)


def test_what_has_a_name_is_asked_by_opening_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS the attributes of a name are up to a minute old until it is opened."""
    path = tmp_path / "file"
    path.write_bytes(b"a")
    fd = os.open(path, os.O_RDONLY)
    old = os.stat(path)
    (tmp_path / "other").write_bytes(b"b")
    os.rename(tmp_path / "other", path)

    class Stale:
        def __getattr__(self, name: str) -> object:
            return (lambda *_a, **_k: old) if name in ("stat", "lstat") else getattr(os, name)

    assert files.is_at(fd, path) is False
    monkeypatch.setattr(files, "os", Stale())
    assert files.is_at(fd, path) is False
    path.unlink()
    assert files.is_at(fd, path) is False
    os.close(fd)
