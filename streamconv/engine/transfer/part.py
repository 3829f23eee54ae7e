"""One remote file on its way here: ranges that are durable one by one, and whole only once its digest was seen.

Layout in the folder of blobs, where ``KEY`` is the digest the remote side lists for the file:

    KEY.part       the bytes that arrived so far, at their final offsets; sparse
    KEY.wal        the index (see ``journal``): one slot per range, with the digest of the range
    KEY            the complete file, after its digest was checked; the two others are gone then
    KEY.checked    what the system knew of the complete file (size, times, inode) when its digest was right; see ``Part.unverified``
    KEY.damaged    a complete file whose digest was wrong later; kept aside
    KEY.amended    time of the last change to a range that had been committed before; see ``Part.amend``

A slot implies the same here as in a job: the bytes of its range are durable and hash to its digest. Slots of earlier runs
are trusted after the range was read back, each at its first use.
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import xxhash

from ...errors import CannotCreate, Locked, StreamconvError, WriteFailed
from .. import files
from ..index_file import CommitRecord, read_progress
from ..journal import Journal
from ..plan import fingerprint
from . import owned
from .remote import Cut, Elsewhere, Remote

#: What is known of a range. COMMITTED: an earlier run says it is here.
PENDING, CLAIMED, COMMITTED, READY = range(4)
_READ_BYTES = 2 << 20


class Filling:
    """A range while its bytes arrive."""

    def __init__(self, part: Part, index: int) -> None:
        self._part, self.index = part, index
        self.at, self.stop = part.cut.span(index)
        self._digest = xxhash.xxh3_128()

    @property
    def full(self) -> bool:
        """Whether all bytes are there."""
        return self.at == self.stop

    def put(self, offset: int, data: memoryview) -> int:
        """Write what of ``data``, which begins at ``offset``, continues the range; the number of bytes that did."""
        if not offset <= self.at < offset + len(data):
            return 0
        new = data[self.at - offset : self.stop - offset]
        self._part.write(self.at, new)
        self._digest.update(new)
        self.at += len(new)
        return len(new)

    def commit_record(self) -> CommitRecord:
        """What the index is to say of the full range."""
        start, stop = self._part.cut.span(self.index)
        return CommitRecord(self.index, 0, start, stop - start, 0, self._digest.digest())


class Part:
    """The local side of one remote file.

    Only ``Transfer`` uses it, which guards ``states`` with its lock; reading, writing and committing ranges that are CLAIMED
    or READY need no lock.

    Parameters
    ----------
    home : the folder of the model
    head, step : see ``Cut``
    present : where else the file lies complete

    Attributes
    ----------
    links : its names
    states : one of PENDING, CLAIMED, COMMITTED, READY per range
    digests : xxh3_128 of the ranges that are COMMITTED or READY
    path : where the bytes are now
    whole : whether the file is complete, with its digest checked
    unverified : whether that was seen of another file than the one that is here now, going by size, times and inode
    amended_ns : time of the last change to a committed range, 0 when there was none
    notes : what was unusual
    """

    def __init__(self, home: Path, remote: Remote, head: int, step: int, present: Elsewhere | None = None) -> None:
        self.home, self.remote = home, remote
        self.links: list[Path] = []
        self.cut = Cut(remote.size, head, step)
        self.states = bytearray(self.cut.n_ranges)
        self.digests: dict[int, bytes] = {}
        self.notes: list[str] = []
        self.amended_ns = 0
        self.whole = self.unverified = False
        self.path = self._name("part")
        self._present = present
        self._digested: dict[str, int] = {}
        self._rotten: set[int] = set()
        self._journal: Journal | None = None
        self._fd = -1
        self._begin = threading.Lock()
        self._sync = threading.Lock()
        self._is_broken = False
        self._facts = fingerprint([remote.key, remote.size, head, step])
        self.look()

    def _name(self, ending: str = "") -> Path:
        return self.home / "blobs" / (f"{self.remote.key}.{ending}" if ending else self.remote.key)

    def look(self) -> None:
        """Take in what is on disk, without changing anything."""
        with suppress(ValueError):
            self.amended_ns = int(owned.read_small(self._name("amended"), 64) or b"0")
        if self.whole or self._is_here():
            return
        progress = read_progress(self._name("wal")) if self._has_part() else None
        if progress is None or progress.header.fingerprint != self._facts:
            return
        for commit in progress.commits:
            if commit.chunk not in self._rotten and self.states[commit.chunk] == PENDING:
                self.states[commit.chunk] = COMMITTED
                self.digests[commit.chunk] = commit.digest

    def found_since(self, index: int) -> bool:
        """Whether range ``index``, which is no longer fetched here, was fetched by another process."""
        self.states[index] = PENDING
        self.look()
        return self.whole or self.states[index] == COMMITTED

    def _is_here(self) -> bool:
        """Whether the complete file is, in the store or elsewhere."""
        final, seen = owned.status(self._name()), self._record()
        if final is not None and final.st_size == self.remote.size:
            self.path, self.whole, self.unverified = self._name(), True, seen != _identity(final)
        elif self._present is not None:
            self.path, self.whole = self._present.path, True
            # The size alone is trusted of what only this user can write, for as long as nothing else says otherwise.
            expected = seen is not None or not self._present.is_trusted
            self.unverified = self._present.has_digest and expected and seen != _identity(os.stat(self.path))
        elif final is not None:
            self.notes.append(
                f"{self._name()} has {final.st_size} bytes instead of {self.remote.size}; fetching it again"
            )
        return self.whole

    def _record(self) -> dict[str, int] | None:
        """What the system knew of the complete file when its digest was right."""
        try:
            found = json.loads(owned.read_small(self._name("checked"), 4096) or b"null")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _keep_record(self, status: os.stat_result) -> None:
        with suppress(StreamconvError):  # without one the digest is made again
            owned.make(self.home.parent, self.home / "blobs")
            files.write_atomically(self._name("checked"), json.dumps(_identity(status)), owned.FILE_MODE)

    @property
    def has_digest(self) -> bool:
        """Whether the whole file can be checked."""
        return self._present is None or self._present.has_digest

    def digest(self, looked: Callable[[int, str], None]) -> str:
        """The digest of the whole file as it is on disk now; where it is right, that is put on record.

        Parameters
        ----------
        looked : told of bytes that were read, and the name of the file; may raise to end it
        """
        is_ours = self.path == self._name()
        fd = owned.open_file(self.path) if is_ours else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if fd is None:
            raise WriteFailed(f"{self.path} is gone", "Run the same command again.")
        try:
            files.drop_cache(fd)  # what memory holds says nothing about the disk
            before, found = os.fstat(fd), self.remote.new_hash()
            self._digested = _identity(before)
            for at in range(0, before.st_size, _READ_BYTES):
                data = files.pread_exactly(fd, min(_READ_BYTES, before.st_size - at), at, self.path)
                found.update(data)
                looked(len(data), self.remote.path)
            if found.hexdigest() == self.remote.key and _identity(os.fstat(fd)) == _identity(before):
                self.unverified = False
                if self._record() != _identity(before):
                    self._keep_record(before)
            return found.hexdigest()
        finally:
            os.close(fd)

    def set_aside(self) -> Path | None:
        """Use the file no more whose digest was wrong; where it is now, None if that is where it was. Needs the lock.

        One that lies outside of the store stays there, as does one that another process has put in its place by now.
        """
        aside: Path | None = self._name("damaged")
        found = owned.status(self.path) if self.path == self._name() else None
        if aside is not None and found is not None and _identity(found) == self._digested:
            files.publish(self.path, aside)
        else:
            aside = None
        if self.path != self._name():
            self._present = None
        self.forget_record()
        self.whole, self.unverified, self.path = False, False, self._name("part")
        self._journal, self._fd = None, -1
        self.look()
        return aside

    def forget_record(self) -> None:
        """Have the digest of the complete file made again before it is used."""
        files.remove_file(self._name("checked"))

    def _has_part(self) -> bool:
        found = owned.status(self._name("part"))
        return found is not None and found.st_size == self.remote.size

    def allocated_bytes(self) -> int:
        """Disk space that the file takes already."""
        try:
            return min(self._name("part").stat().st_blocks * 512, self.remote.size)
        except OSError:
            return 0

    def begin(self) -> None:
        """Make sure the part file and its index can be written; the caller holds the lock of the folder.

        A part file whose index is unusable or describes something else is kept aside.
        """
        with self._begin:
            if self._journal is not None or self.whole:
                return
            journal = Journal.open(self._name("wal")) if self._has_part() else None
            if journal is not None and journal.header.fingerprint != self._facts:
                journal.close()
                journal = None
            if journal is None:
                self._set_aside()
                journal = Journal.create(self._name("wal"), self.cut.n_ranges, self._facts)
                fd = files.open_for_writing(self._name("part"), create=True, mode=owned.FILE_MODE)
                if self.remote.size:  # gives the file its length, not its disk space
                    files.pwrite_all(fd, b"\0", self.remote.size - 1, self._name("part"))
                files.sync_data(fd, self._name("part"))
                files.sync_dir(self._name("part").parent)
            else:
                fd = files.open_for_writing(self._name("part"), create=False)
                torn = journal.damaged_slots()
                if torn:
                    self.notes.append(
                        f"{self.remote.path}: {torn} index slots were damaged; their ranges are fetched again"
                    )
                if self._rotten:
                    journal.forget(self._rotten)
                journal.take_over()
            self._close_later(fd)
            weakref.finalize(self, journal.close)
            self._fd, self._journal = fd, journal

    def _close_later(self, fd: int) -> None:
        # A thread that is still in a system call holds a reference to this object, so the number cannot be taken by another
        # file under its feet.
        weakref.finalize(self, os.close, fd)

    def _set_aside(self) -> None:
        part = self._name("part")
        if self._has_part() and part.stat().st_blocks > 8:
            old = self._name("part.old")
            files.publish(part, old)
            self.notes.append(f"{self.remote.path}: the existing data did not match its index and is kept as {old}")
        index = self._name("wal")
        half_made = index.parent.glob(f"{index.name}.*.tmp")  # by runs that were killed over it
        for path in (part, index, *half_made):
            files.remove_file(path)

    def reserve(self) -> None:
        """Reserve the disk space of the whole file.

        Raises
        ------
        WriteFailed : the disk is too small
        """
        files.allocate(self._fd, self.remote.size, self.path)

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes of a range that is CLAIMED."""
        files.pwrite_all(self._fd, data, offset, self.path)

    def commit(self, commit: CommitRecord) -> None:
        """Make a full range durable, then say so in the index.

        Raises
        ------
        Locked : another process has taken over
        WriteFailed : never retried
        """
        assert self._journal is not None
        with self._sync:
            # The kernel reports lost bytes once, to the next caller: after one failure no success can be trusted.
            if self._is_broken:
                raise WriteFailed(f"{self.path}: bytes written before could not be synced to disk", "Check the disk.")
            try:
                files.sync_data(self._fd, self.path)
            except BaseException:
                self._is_broken = True
                raise
        self._confirm()
        self._journal.commit([commit])
        self.digests[commit.chunk] = commit.digest
        self._rotten.discard(commit.chunk)

    def _confirm(self) -> None:
        """Locked when another process has taken over, or when the file that is written has lost its name."""
        assert self._journal is not None
        if not self._journal.still_ours() or not files.is_at(self._fd, self.path):
            raise Locked(f"another process has taken over {self.path}", "Wait for it to finish.")

    def read(self, index: int) -> Iterator[bytes]:
        """The bytes of a range, a few MiB at a time."""
        self._open()
        start, stop = self.cut.span(index)
        for at in range(start, stop, _READ_BYTES):
            yield files.pread_exactly(self._fd, min(_READ_BYTES, stop - at), at, self.path)

    def _open(self) -> None:
        with self._begin:  # or this would take the place of what ``begin`` opens, and nothing could be written
            if self._fd >= 0:
                return
            fd = owned.open_file(self.path)
            if fd is None:  # another process has just completed it
                fd = owned.open_file(self._name())
            if fd is None:
                raise WriteFailed(f"{self.path} is gone", "Run the same command again.")
            self._close_later(fd)
            self._fd = fd

    def holds(self, index: int) -> bool:
        """Whether the bytes on disk match the digest in the index; remembers when they are not."""
        self._open()
        self.drop_cache(index)  # what memory holds says nothing about the disk
        digest = xxhash.xxh3_128()
        for data in self.read(index):
            digest.update(data)
        good = digest.digest() == self.digests.get(index)
        if not good:
            self.invalidate(index)
        return good

    def invalidate(self, index: int) -> None:
        """Never trust the slot of range ``index`` again."""
        self.notes.append(f"{self.remote.path}: a range on disk does not match the index and is fetched again")
        self._rotten.add(index)
        if self._journal is not None:
            self._journal.forget([index])

    def drop_cache(self, index: int) -> None:
        """Hint that the bytes of a range are not read again soon."""
        start, stop = self.cut.span(index)
        files.drop_cache(self._fd, start, stop - start)

    def evict(self, indexes: Iterable[int]) -> bool:
        """Give the disk space of ranges back; False when the system cannot and they stay.

        The index forgets them first: a slot over a hole would be a lie.
        """
        assert self._journal is not None
        indexes = list(indexes)
        self._journal.forget(indexes)
        spans = [self.cut.span(i) for i in indexes]
        return all([files.punch(self._fd, start, stop - start) for start, stop in spans])

    def amend(self, indexes: Iterable[int]) -> None:
        """Forget committed ranges whose bytes proved wrong, after putting on record that readers may have seen them."""
        assert self._journal is not None
        self.amended_ns = time.time_ns()
        files.write_atomically(self._name("amended"), str(self.amended_ns), owned.FILE_MODE)
        self._journal.forget(indexes)

    def publish(self) -> None:
        """Give the complete, checked file its name.

        Raises
        ------
        WriteFailed, Locked
        """
        if self._journal is None:
            self.begin()
        assert self._journal is not None
        self._confirm()
        if os.fstat(self._fd).st_size != self.remote.size:
            raise WriteFailed(f"{self.path} has changed in length", "Check the disk; then run the same command again.")
        files.publish(self.path, self._name())
        self.path, self.whole = self._name(), True
        self._keep_record(os.fstat(self._fd))  # after the renaming, which changes one of the times
        self.tidy()

    def tidy(self) -> None:
        """Give a whole file its names, and remove what it does not need any more."""
        self.look_at_names()
        for link in self.links:
            owned.make(self.home, link.parent)
            files.link(self.path, link)
        files.remove_file(self._name("wal"))

    def look_at_names(self) -> None:
        """NoPermission or CannotCreate when what has one of the names was not put there by a fetch."""
        for link in self.links:
            is_there = owned.look(self.home, link.parent) and os.path.lexists(link)
            if is_there and not link.is_symlink():
                raise CannotCreate(
                    f"{link} is not a link to {self.path}", "It was not fetched: check it and remove it."
                )

    def require_names(self) -> None:
        """CannotCreate unless all names of the whole file lead to it, and not to what another user has put there."""
        for link in self.links:
            if not link.exists() or not os.path.samefile(link, self.path):
                raise CannotCreate(f"{link} does not point to {self.path}", "Check it and remove it.")


def _identity(status: os.stat_result) -> dict[str, int]:
    """What changes with a file's content, unless that is prevented on purpose."""
    return {
        "size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino,
    }  # fmt: skip
