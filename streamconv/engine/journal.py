"""The write-ahead index: one fixed slot per chunk, committed only after the chunk's bytes are durable.

Layout of ``index.wal`` (little endian; written in full at creation, so a later commit can never run out of space):

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
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import StreamconvError
from . import files
from .index_file import (
    CLEAN,
    PAGE,
    PUBLISHING,
    RUNNING,
    CommitRecord,
    Header,
    IndexFile,
    newest_header,
    packed,
    size_of,
    twin_of,
    whole_header,
)
from .network import is_network
from .slots import SLOT


class Journal(IndexFile):
    """The index file of one job, open for one run.

    ``commit`` must be called only after ``files.sync_data`` returned for the data it records: index pages may reach the
    disk at any time after they are written, so a slot must not exist before the data barrier.
    """

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
            size = size_of(n_slots)
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
        # On a network a write to a part of a page may be one to all of it, unless it is synced: see ``attaching``.
        flags = os.O_RDWR | (os.O_DSYNC if is_network(path) else 0)
        with files.guard(path, "cannot open"):
            fd = files.open_own(path, flags, links=2)
        try:
            twin = twin_of(fd, path)
            if twin is not None:
                files.remove_file(twin)
            header = whole_header(fd, path)
            if header is not None:
                journal = cls(path, fd, header)
                fd = -1
                return journal
            return None
        finally:
            if fd >= 0:
                os.close(fd)

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
        files.pwrite_all(self._fd, header.packed(), header.generation % 2 * PAGE, self.path)
        files.sync_data(self._fd, self.path)
        self.header = header

    def still_ours(self) -> bool:
        """Whether no other run has taken this job over since, or started it over under the same name.

        Locks do not tell: they may be no-ops on network filesystems, and go with a folder that is removed. Where they do nothing,
        a run that read the index before this one took it over may write its header late, into the page that holds ours; it then
        finds that it is not the newest and stops, as all before it have. So a newest header older than ours is replaced by ours.
        """
        try:
            fd = files.open_own(self.path, os.O_RDONLY, links=2)  # what NFS knows of an open file may be a minute old
        except FileNotFoundError:
            return False
        try:
            newest = newest_header(fd, self.path)
            same = os.path.samestat(os.fstat(fd), os.fstat(self._fd))
        finally:
            os.close(fd)
        if same and newest is not None and newest.generation < self.header.generation:
            self._write_header(self._next())
            return True
        return same and newest is not None and newest.nonce == self.header.nonce

    def commit(self, commits: Iterable[CommitRecord]) -> None:
        """Record finished chunks durably. Their data must be durable already."""
        kept = list(commits)
        data, size = packed(kept, self.header), SLOT.itemsize
        for n, s in enumerate(kept):
            files.pwrite_all(self._fd, data[n * size : (n + 1) * size], size_of(s.chunk), self.path)
        files.sync_data(self._fd, self.path)

    def forget(self, chunks: Iterable[int]) -> None:
        """Make ``chunks`` pending again, durably."""
        for chunk in chunks:
            files.pwrite_all(self._fd, bytes(SLOT.itemsize), size_of(chunk), self.path)
        files.sync_data(self._fd, self.path)
