"""The folders and files of a store, which are used only where they are ours; see ``ownership``.

A user who can write to a store decides which commit a branch means, which digest a file has, and so which weights are converted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import NoPermission, raise_exhausted
from .. import files

#: no other user may write, whatever the umask: a store that others can write to is not trusted
FOLDER_MODE, FILE_MODE = 0o755, 0o644
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
HINT = (
    "Weights that others put there would be trusted. Remove their write permission (`chmod -R go-w FOLDER`), remove what is"
    " not yours, or set STREAMCONV_CACHE to a folder of your own."
)


def look(root: Path, folder: Path) -> bool:
    """Whether ``folder`` is there, below or at ``root``; nothing is written.

    Raises
    ------
    NoPermission : it or a folder above it, up to ``root``, is not ours
    """
    for path in _down(root, folder):
        if not os.path.lexists(path):
            return False
        with _explained():
            files.require_own_dir(path)
    return True


def make(root: Path, folder: Path) -> None:
    """Create ``folder`` and those above it as far as they are missing; those that are there must be ours, from ``root`` on."""
    files.make_dirs(root.parent)
    for path in _down(root, folder):
        with _explained():
            files.own_dir(path, FOLDER_MODE)


def open_file(path: Path) -> int | None:
    """A descriptor to read a file of a store, whose folder is ours; None when it is not there.

    Raises
    ------
    NoPermission : it is a link, a pipe, belongs to another user, has another name, or may not be read
    """
    try:
        with _explained():
            return files.open_own(path, os.O_RDONLY)
    except PermissionError:
        raise NoPermission(f"{path} is not readable", HINT) from None
    except OSError as e:
        raise_exhausted(e)
        return None


def status(path: Path) -> os.stat_result | None:
    """What the system knows of such a file, which need not be readable; None when it is not there."""
    try:
        with _explained():
            return files.status_own(path)
    except OSError:
        return None


def read_small(path: Path, most: int) -> bytes | None:
    """The content of such a file; None when it is not there, longer than ``most`` bytes, or others may write to it."""
    fd = open_file(path)
    if fd is None:
        return None
    try:
        found = os.fstat(fd)
        # On a filesystem without modes the folder shows the same ones, and was found to be ours nevertheless.
        shared = found.st_mode & ~os.stat(path.parent).st_mode & OTHERS_WRITE
        good = found.st_size <= most and not shared
        return files.pread_exactly(fd, most, 0, path) if good else None
    finally:
        os.close(fd)


def _down(root: Path, folder: Path) -> Iterator[Path]:
    yield root
    for name in folder.relative_to(root).parts:
        root = root / name
        yield root


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except NoPermission as e:
        raise NoPermission(e.message, HINT) from None


def nearest_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.is_dir())
