"""The file of a write-ahead index and how it is read, by the run that writes it or by any other; see ``journal``."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import NoPermission, PlanDiffers, WriteFailed, raise_exhausted
from . import files
from .slots import SLOT, SlotArray, Slots, intact, sealed

PAGE = 4096
_HEADER = struct.Struct("<4sIQBxxxxxxxQQQQ32sd16s")
_CRC = struct.Struct("<I")
_MAGIC, _VERSION = b"SCVJ", 1
_SLOT_MAGIC = int.from_bytes(b"SLOT", "little")

RUNNING, CLEAN, PUBLISHING = 1, 2, 3
_DONE = 1


@dataclass(frozen=True)
class Header:
    """One generation of the index's header.

    Attributes
    ----------
    generation : rises with every header written; page ``generation % 2``
    state : RUNNING, CLEAN (stopped cleanly) or PUBLISHING
    n_slots : number of chunks
    salt : random number of this job; slots of another job are not valid here
    nonce : random number of the run that wrote it; a run that meets another nonce has lost the job and stops
    clean_generation : generation of the last orderly stop
    fingerprint : SHA-256 of the plan
    inputs : digest of the identity of the input files when the job was planned; zeros where it was not recorded
    """

    generation: int
    state: int
    n_slots: int
    salt: int
    nonce: int
    clean_generation: int
    fingerprint: bytes
    inputs: bytes = bytes(16)

    def packed(self) -> bytes:
        """The page that says this, written now."""
        payload = _HEADER.pack(
            _MAGIC, _VERSION, self.generation, self.state, self.n_slots, self.salt, self.nonce, self.clean_generation,
            self.fingerprint, time.time(), self.inputs,
        )  # fmt: skip
        body = payload.ljust(PAGE - _CRC.size, b"\0")
        return body + _CRC.pack(zlib.crc32(body))


@dataclass(frozen=True, slots=True)  # one a chunk
class CommitRecord:
    """What a slot records of its finished chunk.

    Attributes
    ----------
    chunk : chunk number = slot number
    file : which output file
    offset, length : byte range in it
    rows : rows in the chunk
    digest : 16 bytes, xxh3_128 of the range
    sum_squared_error, max_error : decoded values against the source, 0 unless measured
    nonfinite : NaN and Inf among the source's values
    generation : header generation it was committed under
    source : 16 bytes, digest of what the range was made from; zeros where it was not recorded
    """

    chunk: int
    file: int
    offset: int
    length: int
    rows: int
    digest: bytes
    sum_squared_error: float = 0.0
    max_error: float = 0.0
    nonfinite: int = 0
    generation: int = 0
    source: bytes = bytes(16)


class Progress(NamedTuple):
    """What an index says: its ``header``, and the valid ones of its slots, SLOT[n]."""

    header: Header
    done: SlotArray

    @property
    def n_bytes(self) -> int:
        """Bytes of the finished chunks."""
        return int(self.done["length"].sum())

    @property
    def commits(self) -> list[CommitRecord]:
        """The slots, in chunk order."""
        return list(_commits(self.done))


def _commits(done: SlotArray) -> Iterator[CommitRecord]:
    # Columns as lists: a structured array gives numpy scalars one by one, twenty times as slow.
    wanted = (done[name].tolist() for name in _FIELDS)
    return (CommitRecord(*values) for values in zip(*wanted, strict=True))


_FIELDS = (
    "chunk", "file", "offset", "length", "rows", "digest", "sum_squared_error", "max_error", "nonfinite", "generation", "source",
)  # fmt: skip


def packed(commits: Sequence[CommitRecord], header: Header) -> bytes:
    """The slots that record ``commits`` under ``header``, written now."""
    slots = np.zeros(len(commits), SLOT)
    for slot, s in zip(slots, commits, strict=True):
        for name in _FIELDS:
            slot[name] = getattr(s, name)
    slots["magic"], slots["state"], slots["time"] = _SLOT_MAGIC, _DONE, time.time()
    slots["salt"], slots["nonce"], slots["generation"] = header.salt, header.nonce, header.generation
    return sealed(slots)


def _valid(slots: SlotArray, salt: int) -> npt.NDArray[np.bool_]:
    """Which of all slots of an index are valid, that is, their chunks are durable."""
    valid: npt.NDArray[np.bool_] = (slots["magic"] == _SLOT_MAGIC) & (slots["state"] == _DONE) & (slots["salt"] == salt)
    valid &= slots["chunk"] == np.arange(len(slots))
    valid[valid] = intact(slots[valid])
    return valid


class IndexFile:
    """An open index whose header is intact; reads it only.

    Parameters
    ----------
    fd : of the file
    header : the newest that is in it

    Attributes
    ----------
    path, header
    """

    def __init__(self, path: Path, fd: int, header: Header) -> None:
        self.path = path
        self._fd = fd
        self.header = header
        self._slots: Slots | None = None

    def commits(self) -> Iterator[CommitRecord]:
        """All valid slots, in chunk order.

        Raises
        ------
        WriteFailed : the index cannot be read
        """
        return _commits(self.done())

    def done(self) -> SlotArray:
        """The valid slots, SLOT[n], in chunk order; raises as ``commits``."""
        slots = self._read()
        return slots[_valid(slots, self.header.salt)]

    def damaged_slots(self) -> int:
        """Slots that are neither pending nor intact: torn by a power cut, or rotten."""
        slots = self._read()
        used = slots.view(np.uint8).reshape(-1, SLOT.itemsize).any(axis=1)
        return int((used & ~_valid(slots, self.header.salt)).sum())

    def _read(self) -> SlotArray:
        self._slots = self._slots or Slots(self._fd, 2 * PAGE, self.header.n_slots, self.path)
        return self._slots.read()

    def close(self) -> None:
        """Close the file; the job stays as it is."""
        self._slots = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def newest_header(fd: int, path: Path) -> Header | None:
    """The intact header page of the higher generation; None when neither is intact.

    Raises
    ------
    PlanDiffers : it has the format of another version of streamconv
    """
    found: Header | None = None
    files.drop_cache(fd)
    for page in range(2):
        block = files.pread_exactly(fd, PAGE, page * PAGE, path)
        if len(block) < PAGE or _CRC.unpack(block[-4:])[0] != zlib.crc32(block[:-4]):
            continue
        magic, version, generation, state, n_slots, salt, nonce, clean, fingerprint, _time, inputs = (
            _HEADER.unpack_from(block)
        )
        if magic != _MAGIC:
            continue
        if version != _VERSION:
            raise PlanDiffers(
                f"{path} was written by another version of streamconv: format {version}, this version reads {_VERSION}",
                f"Finish it with the version that started it; to start over, remove {path}.",
            )
        if found is None or generation > found.generation:
            found = Header(generation, state, n_slots, salt, nonce, clean, fingerprint, inputs)
    return found


def whole_header(fd: int, path: Path) -> Header | None:
    """The newest header, if the index has the length that it says; raises as ``newest_header``."""
    header = newest_header(fd, path)
    return header if header is not None and os.fstat(fd).st_size == size_of(header.n_slots) else None


def begins_as_index(path: Path) -> bool:
    """Whether one of the header pages in the file ``path`` is still known as that of an index, of whatever version."""
    try:
        fd = files.open_own(path, os.O_RDONLY, links=2)
    except (OSError, NoPermission) as e:
        raise_exhausted(e)
        return False
    try:
        return any(files.pread_exactly(fd, 4, page * PAGE, path) == _MAGIC for page in range(2))
    except WriteFailed:  # a failing disk, which opening it will report
        return True
    finally:
        os.close(fd)


def size_of(n_slots: int) -> int:
    """Of an index with so many slots; where the next one begins."""
    return 2 * PAGE + n_slots * SLOT.itemsize


def twin_of(fd: int, path: Path) -> Path | None:
    """The temporary name that the index still has where a run was killed just when it gave it its own; see ``Journal.create``.

    Raises
    ------
    NoPermission : it has another second name, which is not one of ours
    """
    status = os.fstat(fd)
    if status.st_nlink < 2:
        return None
    for other in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):  # its creator is doing the same
            if _same(os.lstat(other), status):
                return other
    if os.fstat(fd).st_nlink < 2:
        return None
    raise NoPermission(
        f"{path} has {status.st_nlink} names: a hard link to it exists elsewhere",
        "Another user may have put it there: check it, and remove it or choose another name.",
    )


def _same(a: os.stat_result, b: os.stat_result) -> bool:
    """Whether two names are of one file; there are filesystems whose inode numbers differ from name to name."""
    return os.path.samestat(a, b) or (a.st_dev, a.st_nlink, a.st_size, a.st_mtime_ns, a.st_ctime_ns) == (
        b.st_dev, b.st_nlink, b.st_size, b.st_mtime_ns, b.st_ctime_ns,
    )  # fmt: skip


def read_progress(path: Path) -> Progress | None:
    """Header and valid slots of the index at ``path`` without taking it over; None when it cannot be read.

    Raises
    ------
    PlanDiffers : it has the format of another version of streamconv
    NoPermission : it is a link, a pipe, or belongs to another user
    """
    try:
        fd = files.open_own(path, os.O_RDONLY, links=2)
    except OSError:
        return None
    try:
        twin_of(fd, path)
        header = whole_header(fd, path)
        return None if header is None else Progress(header, IndexFile(path, fd, header).done())
    except WriteFailed:
        return None
    finally:
        os.close(fd)
