"""The write-ahead index: one fixed slot per chunk, stamped only after the chunk's bytes are durable.

Layout of ``index.wal`` (little endian; written in full at creation, so a later stamp can never run out of space):

    0      header page A, 4096 bytes        newest valid generation wins, as LMDB's meta pages
    4096   header page B, 4096 bytes
    8192   slot 0, slot 1, …                128 bytes each; never straddles a sector; all zero = pending

Invariants
----------
I1  A valid slot *must* imply: the bytes of its range are durable and hash to its digest.
I2  The file *must* belong to one plan: every slot carries the salt of the header, every header the plan's fingerprint.

A slot whose checksum is wrong is torn or rotten and counts as pending: losing a record costs one chunk of work.
Whatever later formats look like, their header pages begin with the magic and the number of the format and end with the
CRC-32 of the page, so that each version knows an index that it cannot read, and leaves it alone.

Slots are read through a shared mapping (``slots``) and stored by ``pwrite`` and ``fdatasync``, as LMDB does by default. Stored
through the mapping they would be as durable and no faster, but a stray write of this process could change them, the system could
write a slot back at any time before the data barrier, and a full or failing disk would be a signal instead of an error.
Source: the layouts of SQLite's WAL and LMDB; see also borg and restic on write ordering.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import NoPermission, PlanDiffers, StreamconvError, WriteFailed, raise_exhausted
from . import files
from .slots import SLOT, SlotArray, Slots, intact, sealed

_PAGE = 4096
_HEADER = struct.Struct("<4sIQBxxxxxxxQQQQ32sd16s")
_CRC = struct.Struct("<I")
_HEADER_MAGIC, _VERSION = b"SCVJ", 1
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


@dataclass(frozen=True, slots=True)  # one a chunk
class Stamp:
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
    generation : header generation it was stamped under
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
    def stamps(self) -> list[Stamp]:
        """The slots, in chunk order."""
        return list(_stamps(self.done))


def _stamps(done: SlotArray) -> Iterator[Stamp]:
    # Columns as lists: a structured array gives numpy scalars one by one, twenty times as slow.
    wanted = (done[name].tolist() for name in _FIELDS)
    return (Stamp(*values) for values in zip(*wanted, strict=True))


_FIELDS = (
    "chunk", "file", "offset", "length", "rows", "digest", "sum_squared_error", "max_error", "nonfinite", "generation", "source",
)  # fmt: skip


def _valid(slots: SlotArray, salt: int) -> npt.NDArray[np.bool_]:
    """Which of all slots of an index are valid, that is, their chunks are durable."""
    valid: npt.NDArray[np.bool_] = (slots["magic"] == _SLOT_MAGIC) & (slots["state"] == _DONE) & (slots["salt"] == salt)
    valid &= slots["chunk"] == np.arange(len(slots))
    valid[valid] = intact(slots[valid])
    return valid


class Journal:
    """The index file of one job, open for one run.

    ``stamp`` must be called only after ``files.sync_data`` returned for the data it records: index pages may reach the
    disk at any time after they are written, so a slot must not exist before the data barrier.
    """

    def __init__(self, path: Path, fd: int, header: Header) -> None:
        self.path = path
        self._fd = fd
        self.header = header
        self._slots: Slots | None = None

    @classmethod
    def create(cls, path: Path, n_slots: int, fingerprint: bytes, inputs: bytes = bytes(16)) -> Journal:
        """A new index with all slots pending, whole and durable before its name exists.

        Raises
        ------
        NameInTheWay : there is one at ``path``, of another process
        """
        salt, nonce = (int.from_bytes(os.urandom(8), "little") | 1 for _ in range(2))
        header = Header(1, RUNNING, n_slots, salt, nonce, 0, fingerprint, inputs)
        temporary = path.with_name(f"{path.name}.{nonce:016x}.tmp")
        fd = files.open_for_writing(temporary, create=True, mode=files.PRIVATE)
        try:
            size = _size(n_slots)
            for at in range(0, size, 1 << 20):
                files.pwrite_all(fd, bytes(min(1 << 20, size - at)), at, temporary)
            cls(temporary, fd, header)._write_header(header)
            files.publish_new(temporary, path)
        except BaseException:
            with suppress(StreamconvError):
                files.remove_file(temporary)
            raise
        finally:
            os.close(fd)
        # By its name, as all others will: FUSE may cache what is written under each name of a file by itself.
        journal = cls.open(path)
        if journal is None or journal.header.nonce != nonce:
            if journal is not None:
                journal.close()
            raise files.NameInTheWay(f"{path} was just replaced by another process")
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal | None:
        """The index at ``path``, to be taken over by this run; None when there is none or no header page is intact.

        Raises
        ------
        PlanDiffers : it has the format of another version of streamconv
        """
        if not os.path.lexists(path):
            return None
        fd = files.open_for_writing(path, create=False, links=2)
        try:
            twin = _twin(fd, path)
            if twin is not None:
                files.remove_file(twin)
            header = cls._newest_header(fd, path)
            if header is not None and os.fstat(fd).st_size == _size(header.n_slots):
                journal = cls(path, fd, header)
                fd = -1
                return journal
            return None
        finally:
            if fd >= 0:
                os.close(fd)

    @staticmethod
    def _newest_header(fd: int, path: Path) -> Header | None:
        found: Header | None = None
        files.drop_cache(fd)
        for page in range(2):
            block = files.pread_exactly(fd, _PAGE, page * _PAGE, path)
            if len(block) < _PAGE or _CRC.unpack(block[-4:])[0] != zlib.crc32(block[:-4]):
                continue
            magic, version, generation, state, n_slots, salt, nonce, clean, fingerprint, _time, inputs = (
                _HEADER.unpack_from(block)
            )
            if magic != _HEADER_MAGIC:
                continue
            if version != _VERSION:
                raise PlanDiffers(
                    f"{path} was written by another version of streamconv: format {version}, this version reads {_VERSION}",
                    f"Finish it with the version that started it; to start over, remove {path}.",
                )
            if found is None or generation > found.generation:
                found = Header(generation, state, n_slots, salt, nonce, clean, fingerprint, inputs)
        return found

    def take_over(self, inputs: bytes | None = None) -> None:
        """Begin a run: a new nonce; state RUNNING, unless the job had begun to publish; what is known of the ``inputs`` now."""
        nonce = int.from_bytes(os.urandom(8), "little") | 1
        state = PUBLISHING if self.header.state == PUBLISHING else RUNNING
        self._write_header(replace(self._next(), state=state, nonce=nonce, inputs=inputs or self.header.inputs))

    def mark(self, state: int) -> None:
        """Record durably that the job is in ``state``."""
        header = replace(self._next(), state=state)
        if state == CLEAN:
            header = replace(header, clean_generation=header.generation)
        self._write_header(header)

    def _next(self) -> Header:
        return replace(self.header, generation=self.header.generation + 1)

    def _write_header(self, header: Header) -> None:
        h = header
        payload = _HEADER.pack(
            _HEADER_MAGIC, _VERSION, h.generation, h.state, h.n_slots, h.salt, h.nonce, h.clean_generation,
            h.fingerprint, time.time(), h.inputs,
        )  # fmt: skip
        body = payload.ljust(_PAGE - _CRC.size, b"\0")
        files.pwrite_all(self._fd, body + _CRC.pack(zlib.crc32(body)), h.generation % 2 * _PAGE, self.path)
        files.sync_data(self._fd, self.path)
        self.header = header

    def still_ours(self) -> bool:
        """Whether no other run has taken this job over since, or started it over under the same name.

        Locks do not tell: they may be no-ops on network filesystems, and go with a folder that is removed.
        """
        try:
            fd = files.open_own(self.path, os.O_RDONLY, links=2)  # what NFS knows of an open file may be a minute old
        except FileNotFoundError:
            return False
        try:
            newest = self._newest_header(fd, self.path)
            same = os.path.samestat(os.fstat(fd), os.fstat(self._fd))
            return same and newest is not None and newest.nonce == self.header.nonce
        finally:
            os.close(fd)

    def stamp(self, stamps: Iterable[Stamp]) -> None:
        """Record finished chunks durably. Their data must be durable already."""
        kept = list(stamps)
        slots = np.zeros(len(kept), SLOT)
        for slot, s in zip(slots, kept, strict=True):
            for name in _FIELDS:
                slot[name] = getattr(s, name)
        slots["magic"], slots["state"], slots["time"] = _SLOT_MAGIC, _DONE, time.time()
        slots["salt"], slots["nonce"], slots["generation"] = self.header.salt, self.header.nonce, self.header.generation
        data, size = sealed(slots), SLOT.itemsize
        for n, s in enumerate(kept):
            files.pwrite_all(self._fd, data[n * size : (n + 1) * size], _size(s.chunk), self.path)
        files.sync_data(self._fd, self.path)

    def stamps(self) -> Iterator[Stamp]:
        """All valid slots, in chunk order.

        Raises
        ------
        WriteFailed : the index cannot be read
        """
        return _stamps(self.done())

    def done(self) -> SlotArray:
        """The valid slots, SLOT[n], in chunk order; raises as ``stamps``."""
        slots = self._read()
        return slots[_valid(slots, self.header.salt)]

    def damaged_slots(self) -> int:
        """Slots that are neither pending nor intact: torn by a power cut, or rotten."""
        slots = self._read()
        used = slots.view(np.uint8).reshape(-1, SLOT.itemsize).any(axis=1)
        return int((used & ~_valid(slots, self.header.salt)).sum())

    def _read(self) -> SlotArray:
        self._slots = self._slots or Slots(self._fd, 2 * _PAGE, self.header.n_slots, self.path)
        return self._slots.read()

    def forget(self, chunks: Iterable[int]) -> None:
        """Make ``chunks`` pending again, durably."""
        for chunk in chunks:
            files.pwrite_all(self._fd, bytes(SLOT.itemsize), _size(chunk), self.path)
        files.sync_data(self._fd, self.path)

    def close(self) -> None:
        """Close the file; the job stays as it is."""
        self._slots = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def begins_as_index(path: Path) -> bool:
    """Whether one of the header pages in the file ``path`` is still known as that of an index, of whatever version."""
    try:
        fd = files.open_own(path, os.O_RDONLY, links=2)
    except (OSError, NoPermission) as e:
        raise_exhausted(e)
        return False
    try:
        return any(files.pread_exactly(fd, 4, page * _PAGE, path) == _HEADER_MAGIC for page in range(2))
    except WriteFailed:  # a failing disk, which opening it will report
        return True
    finally:
        os.close(fd)


def _size(n_slots: int) -> int:
    """Of an index with so many slots; where the next one begins."""
    return 2 * _PAGE + n_slots * SLOT.itemsize


def _twin(fd: int, path: Path) -> Path | None:
    """The temporary name that the index still has where a run was killed just when it gave it its own; see ``create``.

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
        _twin(fd, path)
        header = Journal._newest_header(fd, path)
        if header is None or os.fstat(fd).st_size != _size(header.n_slots):
            return None
        return Progress(header, Journal(path, fd, header).done())
    except WriteFailed:
        return None
    finally:
        os.close(fd)
