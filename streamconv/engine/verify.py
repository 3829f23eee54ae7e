"""Are the bytes of a finished file still those that were made, as its record has them?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from ..errors import NoPermission, StreamconvError, raise_exhausted
from ..ownership import open_regular
from . import files
from .record import FileRecord

_READ_BYTES = 4 << 20
#: floats of a tile
_SCRATCH = 128 << 10
_UNKNOWN = bytes(16)

#: told of the bytes read so far; raises to stop
Progress = Callable[[int], None]


class Damage(NamedTuple):
    """A range that is not as it was made; ``what`` is wrong with it, ``tensor`` "" outside of tensors."""

    path: Path
    offset: int
    length: int
    tensor: str
    what: str

    def __str__(self) -> str:
        place = f": bytes {self.offset:,} to {self.offset + self.length:,}" if self.length else ""
        return f"{self.path}: {self.what}{place}{f', tensor {self.tensor}' if self.tensor else ''}"


def digest_of(fd: int, offset: int, length: int, path: Path, progress: Progress | None = None) -> bytes:
    """xxh3-128 of a range of an open file, a few MiB at a time; what the file lacks is left out."""
    digest = xxhash.xxh3_128()
    for at in range(offset, offset + length, _READ_BYTES):
        data = files.pread_exactly(fd, min(_READ_BYTES, offset + length - at), at, path)
        digest.update(data)
        if progress:
            progress(len(data))
    return digest.digest()


def damages(path: Path, record: FileRecord, progress: Progress | None = None) -> Iterator[Damage]:
    """Everything of the file that is not what ``record`` says; reads all of it.

    Raises
    ------
    WriteFailed : it cannot be read
    """
    try:
        fd = open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
    except (OSError, NoPermission) as e:
        raise_exhausted(e)
        what = f"cannot be opened: {e.strerror}" if isinstance(e, OSError) else "is not a regular file"
        yield Damage(path, 0, 0, "", what)
        return
    try:
        size, record = os.fstat(fd).st_size, _form(fd, path, record)
        if size != record.size:
            start, stop = sorted((size, record.size))
            yield Damage(path, start, stop - start, "", f"has {size:,} bytes, expected {record.size:,}")
        ranges = [(0, record.header_bytes, record.header_digest, "", "the header differs")]
        ranges += [(r.offset, r.length, r.digest, r.tensor, "differs from what was written") for r in record.ranges]
        end = 0
        for offset, length, digest, tensor, what in ranges:
            yield from _gap(fd, path, end, min(offset, size))
            if digest_of(fd, offset, length, path, progress).hex() != digest:
                yield Damage(path, offset, length, tensor, what)
            files.drop_cache(fd, offset, length)
            end = offset + length
        yield from _gap(fd, path, end, min(record.size, size))
    finally:
        os.close(fd)


def _gap(fd: int, path: Path, start: int, stop: int) -> Iterator[Damage]:
    """What aligns tensors is zero."""
    for at in range(start, stop, _READ_BYTES):
        data = files.pread_exactly(fd, min(_READ_BYTES, stop - at), at, path)
        if any(data):
            yield Damage(path, at, len(data), "", "alignment padding is not zero")


def has_header(path: Path, record: FileRecord) -> bool:
    """Whether the file begins as ``record`` says; for a file without ranges, whether it is the one on record."""
    try:
        fd = open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
    except (OSError, NoPermission):
        return False
    try:
        found = _form(fd, path, record)
        return digest_of(fd, 0, found.header_bytes, path).hex() == found.header_digest
    except StreamconvError:
        return False
    finally:
        os.close(fd)


def form_at(path: Path, record: FileRecord) -> FileRecord:
    """Which of the things that the file may be it is; as it was made, where it is neither or cannot be read."""
    return next((form for form in record.forms[1:] if has_header(path, form)), record)


def is_edited(path: Path, record: FileRecord) -> bool:
    """Whether the file begins with the other header that ``record`` has."""
    return form_at(path, record) is not record


def _form(fd: int, path: Path, record: FileRecord) -> FileRecord:
    """Which of the things that the file may be it is, by its header; as it was made, where it is neither."""
    others = (f for f in record.forms[1:] if digest_of(fd, 0, f.header_bytes, path).hex() == f.header_digest)
    return next(others, record)


def first_damage(path: Path, record: FileRecord) -> Damage | None:
    """The first of ``damages``, None where the file is as it was made."""
    with suppress(StreamconvError):
        return next(damages(path, record), None)
    return Damage(path, 0, 0, "", "cannot be read")
