"""Brings remote files here by ranges: several connections, each range durable by itself, none asked for twice.

    reader      ensure(bytes) ─► not here: first in the queue ─► waits
    worker      takes ranges ─► origin.read ─► pwrite, digest ─► data barrier ─► commit            (one per connection)
    verifier      evicts what is no longer needed; reads ranges in order into the file's digest; publishes whole files

Order of the queue: what a reader waits for, what was hinted at, what is wanted at all. Where bytes come from is the business
of the ``Origin``, which also retries; an error that leaves it ends the transfer. Everything committed stays for the next run.

A transfer begins by looking only. The lock of a model's folder is taken when a byte is missing or weights are read, so that
any number of processes may look at headers.

Layout below the root, one folder per model; several commits share blobs:

    MODEL/lock            who is fetching into it
    MODEL/blobs/          the bytes; see ``part``
    MODEL/COMMIT/…        the files by their names: links to blobs that are complete
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary

from ...errors import BadInput, CannotCreate, Locked, NoPermission, WriteFailed
from ...threads import Thread
from .. import files
from ..budget import RESERVE_BYTES
from ..lock import JobLock
from . import owned
from .connections import Connections
from .part import CLAIMED, COMMITTED, PENDING, READY, Part
from .remote import Elsewhere, Remote
from .shared import Observer, Origin, Settings, Shared
from .verifier import Verifier

#: reading more than this for a second time is told
_TELL_BYTES = 256 << 20
#: between two looks at threads that may have died without a word
_LOOK_SECONDS = 1.0
#: how long all threads together may take to end; a request to the network that hangs takes less
_PATIENCE_SECONDS = 20.0


def _ignore(n_bytes: int, path: str) -> None:
    """Ignores all events."""


class Transfer(Shared):
    """The remote files of one job, some of them here, the others on their way.

    Parameters
    ----------
    root : folder of all models; need not exist
    """

    #: those of this process that hold a lock, by its file
    _holders: ClassVar[WeakValueDictionary[Path, Transfer]] = WeakValueDictionary()

    def __init__(self, root: Path, origin: Origin, observer: Observer, settings: Settings) -> None:
        super().__init__(origin, observer, settings)
        #: Another transfer of this process may have the locks: nothing is made of what is read here.
        self.gives_way = False
        #: A process that releases ranges must not do so under a reader; looking at headers needs no lock, they stay.
        self.lock_to_read = False
        self.verifier = Verifier(self, lambda part, indexes: self.connections.add_again(part, indexes), self._give_back)
        self.connections = Connections(self, self.verifier)
        self._root = root
        self._locks: dict[Path, JobLock] = {}
        self._threads: list[Thread] = []
        self._patient_until = 0.0

    def add(self, model: str, commit: str, remote: Remote, present: Elsewhere | None = None) -> PartialDownload:
        """One more file, of a commit of a model; looks at what is here of it and changes nothing.

        Parameters
        ----------
        present : where else the file lies complete on this machine

        Raises
        ------
        NoPermission : what is here is not ours
        """
        home = self._root / model
        owned.look(self._root, home / "blobs")
        with self.changed:
            same = [p for p in self.parts if p.home == home and p.remote.key == remote.key]
            part = same[0] if same else Part(home, remote, self.settings.head_bytes, self.settings.range_bytes, present)
            part.links.append(home / commit / remote.path)
            if not same:
                self.parts.append(part)
        return PartialDownload(self, part)

    def missing_bytes(self, partial: Iterable[PartialDownload] | None = None) -> int:
        """Bytes of these files (default: all) that are still to be downloaded."""
        total = 0
        for part in self._parts(partial):
            if not part.whole:
                spans = (part.cut.span(i) for i, state in enumerate(part.states) if state in (PENDING, CLAIMED))
                total += sum(stop - start for start, stop in spans)
        return total

    def can_mend(self, partial: PartialDownload) -> bool:
        """Whether a damaged file can be set aside, to fetch it again."""
        return os.access(owned.nearest_folder(partial.part.home / "blobs"), os.W_OK | os.X_OK)

    def check(
        self,
        partial: Iterable[PartialDownload] | None = None,
        *,
        every: bool = False,
        mends: bool = False,
        looked: Callable[[int, str], None] = _ignore,
    ) -> None:
        """Make the digests again of those of these files (default: all) that are whole, but unverified; of ``every`` whole one.

        Parameters
        ----------
        mends : set aside what is damaged, so that it is fetched again; it must have no readers
        looked : told of bytes that were read, and the name of the file; may raise to end it

        Raises
        ------
        BadInput : a file is damaged, and not to be fetched again
        Locked : another process is fetching
        """
        self._check(self._parts(partial), every, mends, looked)

    def _check(self, parts: Sequence[Part], every: bool, mends: bool, looked: Callable[[int, str], None]) -> None:
        parts = [p for p in parts if p.whole and p.has_digest and (every or p.unverified)]
        total = sum(p.remote.size for p in parts)
        if total > _TELL_BYTES and not every:
            self.observer.message(f"checking {total:,} bytes again that were copied or changed after they were fetched")
        for part in parts:
            found = part.digest(looked)
            if found == part.remote.key:
                continue
            what = f"{part.path} is damaged: its digest is {found}, the hub lists {part.remote.digest}"
            if not mends:
                hint = f"Fetch it again: streamconv fetch --verify {part.home.name.replace('--', '/')}"
                raise BadInput(f"{part.remote.path}: {what}", hint)
            with self.changed:
                self._lock(part)
                aside = part.set_aside()
            self.observer.message(
                f"{part.remote.path}: {what}; fetching it again" + (f", kept as {aside}" if aside else "")
            )

    def require_names(self, partial: Iterable[PartialDownload]) -> None:
        """CannotCreate unless each name of these whole files leads to it."""
        for part in self._parts(partial):
            part.require_names()

    def fetch(self, partial: Iterable[PartialDownload] | None = None) -> None:
        """Begin to fetch these files whole (default: all), in this order; returns at once.

        Raises
        ------
        BadInput : a file that is here is damaged; see ``check``
        Locked : another process is fetching
        WriteFailed : the disk is too small
        """
        parts = self._parts(partial)
        self._check(parts, False, False, _ignore)
        with self.changed:
            for part in parts:
                self.own(part)
                if part.whole:
                    part.look_at_names()
                    # Names are for people; a cache that is only read has some.
                    with suppress(NoPermission, CannotCreate):
                        part.tidy()
            self._check_space(parts)
            for part in parts:
                self.verifier.want_whole(part)
                self.connections.add((part, i) for i, state in enumerate(part.states) if state == PENDING)
            if any(not p.whole for p in parts):
                self.go()

    def start(self) -> None:
        """Begin to fetch what was claimed; with ``settings.keep`` everything else after it."""
        if self.settings.keep:
            self.fetch()
            return
        self.check()
        with self.changed:
            for part in self.parts:
                self.own(part)
            if any(not p.whole for p in self.parts):
                self.verifier.start_releasing()
                self.go()

    def hurry_heads(self, partial: Iterable[PartialDownload]) -> None:
        """Fetch the first range of each of these files before everything that no reader waits for; returns at once.

        Raises
        ------
        Locked : another process is fetching
        """
        with self.changed:
            missing = [p for p in self._parts(partial) if not p.whole and PENDING in p.states[:1]]
            for part in missing:
                self.own(part)
            self.connections.hint((p, 0) for p in missing if not p.whole)
            if missing:
                self.go()

    def wait(self, partial: Iterable[PartialDownload] | None = None, seconds: float | None = None) -> bool:
        """Wait until these files (default: all) are whole and checked, or released; at most for ``seconds``. Whether they are.

        Raises
        ------
        BadInput : a file's digest is not the one that the remote side lists
        NetworkError : and whatever else ended the transfer
        """
        parts = self._parts(partial)
        until = None if seconds is None else time.monotonic() + seconds
        with self.changed:
            while not (self.is_over() or self.verifier.finished(parts)):
                left = _LOOK_SECONDS if until is None else min(until - time.monotonic(), _LOOK_SECONDS)
                if left <= 0:
                    break
                self.changed.wait(left)
            if self.verifier.finished(parts):
                return True
            self.raise_error()
            return False

    def close(self) -> None:
        """End all threads and release the locks. What is durable stays; readers that wait get Stopped.

        A thread that does not end keeps the locks until the process does: it may still write.
        """
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.origin.abort()
        self._patient_until = self._patient_until or time.monotonic() + _PATIENCE_SECONDS
        if not all([t.join(self._patient_until - time.monotonic()) for t in self._threads]):
            return
        with self.changed:
            for lock in self._locks.values():
                lock.close()
            self._locks.clear()

    # For the parts of a transfer; the caller holds the lock unless it says otherwise.

    def _parts(self, partial: Iterable[PartialDownload] | None) -> list[Part]:
        return list(self.parts) if partial is None else list(dict.fromkeys(a.part for a in partial))

    def owns(self, part: Part) -> bool:
        """Whether no other user may change what is here of ``part``."""
        return part.home in self._locks or part.whole

    def own(self, part: Part, even_whole: bool = False) -> None:
        """Take the lock of its folder, and see what other processes fetched until now."""
        if even_whole or not self.owns(part):
            self._lock(part)

    def _lock(self, part: Part) -> None:
        if part.home in self._locks:
            return
        owned.make(self._root, part.home / "blobs")
        place = part.home / "lock"
        other = self._holders.get(place)
        if other is not None and other is not self and other.gives_way:
            other.close()
        try:
            self._locks[part.home] = JobLock(place)
        except Locked as e:
            who = e.message.rpartition(": ")[2]
            raise Locked(f"another process is fetching into {part.home}: {who}", e.hint) from None
        self._holders[place] = self
        for p in self.parts:
            if p.home == part.home:
                p.look()

    def go(self) -> None:
        """Bring the threads up, or wake them."""
        if not self._threads and not self.closing:
            bodies = [self.connections.run] * self.settings.connections + [self.verifier.run]
            self._threads = [Thread(body) for body in bodies]
            try:
                for thread in self._threads:
                    thread.start()
            except BaseException as e:
                self.error = self.error or e
                raise
        self.changed.notify_all()

    def is_over(self) -> bool:
        """Whether nothing more will arrive; also when a thread has died without a word."""
        for thread in self._threads if self.error is None and not self.closing else ():
            self.error = self.error or thread.failure
        return super().is_over()

    def raise_error(self) -> None:
        """Raise what ended the transfer, if something did."""
        self.is_over()
        super().raise_error()

    def _give_back(self, part: Part) -> None:
        """Let other processes have the folder of ``part`` once nothing is missing in it any more."""
        if part.home in self._locks and all(p.whole for p in self.parts if p.home == part.home):
            self._locks.pop(part.home).close()

    def _check_space(self, parts: Sequence[Part]) -> None:
        unfinished = [p for p in parts if not p.whole]
        need = sum(p.remote.size - p.allocated_bytes() for p in unfinished)
        free = files.free_bytes(unfinished[0].home) if unfinished else 0
        if need > 0 and need + RESERVE_BYTES > free:
            raise WriteFailed(
                f"{self._root}: {need + RESERVE_BYTES:,} bytes are needed ({need:,} for the download,"
                f" {RESERVE_BYTES:,} in reserve), {free:,} are free",
                "Free some space, move the cache with STREAMCONV_CACHE, or convert with --evict or --keep-packed.",
            )


class PartialDownload:
    """One file of a transfer, for its readers. May be used from several threads."""

    def __init__(self, transfer: Transfer, part: Part) -> None:
        self.transfer, self.part = transfer, part

    @property
    def path(self) -> Path:
        """Where the bytes are now; exists after ``ensure``."""
        return self.part.path

    @property
    def whole(self) -> bool:
        """Whether the file is complete and was checked."""
        return self.part.whole

    @property
    def amended_ns(self) -> int:
        """When bytes that readers may have seen were last replaced; 0 for never."""
        return self.part.amended_ns

    @property
    def is_evictable(self) -> bool:
        """Whether bytes may be released again, so that only ``held`` ones can be relied on."""
        return not self.transfer.settings.keep

    def ensure(self, offset: int, length: int) -> None:
        """Wait until these bytes are here.

        Raises
        ------
        NetworkError : and whatever else ended the transfer
        Locked : another process is fetching
        Stopped : the transfer was closed
        """
        part, transfer = self.part, self.transfer
        if part.whole:
            return
        if transfer.lock_to_read and not transfer.owns(part):
            with transfer.changed:
                transfer.own(part)
        for index in part.cut.touched(offset, length):
            if part.states[index] != READY:
                self._ensure(index)

    @contextmanager
    def held(self, offset: int, length: int) -> Iterator[None]:
        """``ensure``, and the bytes are not released before the block ends."""
        part, transfer = self.part, self.transfer
        touched = part.cut.touched(offset, length)
        with transfer.changed:
            transfer.verifier.pin(part, touched)
        try:
            self.ensure(offset, length)
            yield
        finally:
            with transfer.changed:
                transfer.verifier.unpin(part, touched)
                transfer.changed.notify_all()

    def prefetch(self, offset: int, length: int) -> None:
        """Hint that these bytes will be read soon; fetches them before what was not requested."""
        part, transfer = self.part, self.transfer
        if part.whole:
            return
        with transfer.changed:
            new = [(part, i) for i in part.cut.touched(offset, length) if part.states[i] == PENDING]
            if new and transfer.owns(part):
                transfer.connections.hint(new)
                transfer.go()

    def is_summed(self, offset: int, length: int) -> bool:
        """Whether these bytes have gone into the digest of the whole file; also where it is not made, or no more."""
        part = self.part
        with self.transfer.changed:
            return part.whole or all(
                self.transfer.verifier.has_summed(part, i) for i in part.cut.touched(offset, length)
            )

    def claim(self, offset: int, length: int) -> None:
        """These bytes will be read once more; fetch them in the order of the claims and keep them until ``unclaim``."""
        part, transfer = self.part, self.transfer
        with transfer.changed:
            for index in part.cut.touched(offset, length) if not part.whole else ():
                if not transfer.verifier.is_wanted(part, index):
                    transfer.connections.add([(part, index)])
                transfer.verifier.claim(part, index)

    def unclaim(self, offset: int, length: int) -> None:
        """What was made of these bytes is durable. The last claim of a range releases it, unless ``settings.keep``."""
        part, transfer = self.part, self.transfer
        with transfer.changed:
            for index in part.cut.touched(offset, length) if not part.whole else ():
                transfer.verifier.unclaim(part, index)
            transfer.changed.notify_all()

    def _ensure(self, index: int) -> None:
        part, transfer = self.part, self.transfer
        while True:
            with transfer.changed:
                while part.states[index] != COMMITTED:
                    if part.whole or part.states[index] == READY:
                        return
                    if transfer.closing and transfer.gives_way and part.found_since(index):
                        continue
                    transfer.raise_error()
                    if part.states[index] == PENDING and not transfer.owns(part):
                        transfer.own(part)
                        continue
                    if part.states[index] == PENDING:
                        transfer.connections.hurry(part, index)
                        transfer.go()
                    transfer.changed.wait(1)
                part.states[index] = CLAIMED
            good = False
            try:
                good = part.holds(index)
            finally:
                with transfer.changed:
                    part.states[index] = READY if good else PENDING
                    transfer.changed.notify_all()
