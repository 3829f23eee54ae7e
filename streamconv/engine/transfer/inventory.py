"""What is in a store, whichever process fetched it and whenever."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ...errors import PlanDiffers, WriteFailed
from .. import files
from ..index_file import read_progress
from . import owned

_BLOB = re.compile(r"(?P<key>[0-9a-f]{40}|[0-9a-f]{64})(?P<part>\.part)?")
_READ_BYTES = 2 << 20


@dataclass(frozen=True)
class Stored:
    """A file of a store.

    Attributes
    ----------
    home : the folder of the model
    path : where it is
    key : its digest, hexadecimal, when it is whole
    size : bytes when it is whole
    here : of its bytes, those that are here
    ranges : for a partial one, first byte, byte after the last and xxh3_128 of each range that its index records
    """

    home: Path
    path: Path
    key: str
    size: int
    here: int
    ranges: tuple[tuple[int, int, bytes], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here."""
        return self.path.name == self.key


def models(root: Path) -> list[Path]:
    """The folders of the models in the store ``root``.

    Raises
    ------
    NoPermission : the store is not ours
    """
    if not owned.look(root, root):
        return []
    folders = sorted(p for p in files.listed(root, root) if p.is_symlink() or p.is_dir())
    return [p for p in folders if owned.look(root, p / "blobs")]


def stored(home: Path) -> Iterator[Stored]:
    """The files of the model in ``home``, whole and partial.

    Raises
    ------
    NoPermission : one of them is not ours
    """
    for path in sorted(files.listed(home / "blobs", home)):
        name, status = _BLOB.fullmatch(path.name), owned.status(path)
        if name is None or status is None:
            continue
        if not name["part"]:
            yield Stored(home, path, name["key"], status.st_size, status.st_size)
            continue
        try:
            progress = read_progress(path.with_suffix(".wal"))
        except PlanDiffers:  # only the version that wrote it can tell
            progress = None
        found = tuple((s.offset, s.offset + s.length, s.digest) for s in progress.commits) if progress else ()
        yield Stored(home, path, name["key"], status.st_size, sum(b - a for a, b, _ in found), found)


def others(home: Path, ending: str) -> Iterator[Stored]:
    """The files of the model in ``home`` that are kept in the form ``ending``, see ``replacing``; ``here`` counts that form.

    Raises
    ------
    NoPermission : one of them is not ours
    """
    for path in sorted(files.listed(home / "blobs", home)):
        key, status = path.name.removesuffix(ending), owned.status(path)
        if path.name.endswith(ending) and _BLOB.fullmatch(key) and status is not None:
            yield Stored(home, path, key, status.st_size, status.st_size)


def damaged_ranges(part: Stored, looked: Callable[[int, str], None]) -> list[tuple[int, int]]:
    """Ranges of a partial file whose bytes do not match the digests in its index.

    Parameters
    ----------
    looked : told of bytes that were read, and the name of the file; may raise to end it
    """
    fd = owned.open_file(part.path)
    if fd is None:
        return []  # completed, or given up, since it was listed
    try:
        files.drop_cache(fd)  # what memory holds says nothing about the disk
        found = [
            (start, stop, was) for start, stop, was in part.ranges if _digest(fd, start, stop, part, looked) != was
        ]
    finally:
        os.close(fd)
    # A process that is fetching may have given them back meanwhile.
    progress = read_progress(part.path.with_suffix(".wal")) if found else None
    still = {(s.offset, s.digest) for s in progress.commits} if progress else set()
    return [(start, stop) for start, stop, was in found if (start, was) in still]


def _digest(fd: int, start: int, stop: int, part: Stored, looked: Callable[[int, str], None]) -> bytes:
    digest = xxhash.xxh3_128()
    for at in range(start, stop, _READ_BYTES):
        try:
            data = files.pread_exactly(fd, min(_READ_BYTES, stop - at), at, part.path)
        except WriteFailed:  # an I/O error is damage, too
            return b""
        digest.update(data)
        looked(len(data), part.path.name)
    return digest.digest()
