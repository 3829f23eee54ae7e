"""Brings remote files here by ranges: several connections, each range durable by itself, none asked for twice.

    reader      ensure(bytes) ─► not here: first in the queue ─► waits
    worker      takes ranges ─► origin.read ─► pwrite, digest ─► data barrier ─► stamp            (one per connection)
    keeper      evicts what is no longer needed; reads ranges in order into the file's digest; publishes whole files

Order of the queue: what a reader waits for, what was hinted at, what is wanted at all. Where bytes come from is the business
of the ``Origin``, which also retries; an error that leaves it ends the transfer. Everything committed stays for the next run.

A transfer begins by looking only. The lock of the folder is taken when the first byte is missing, so that any number of
processes may read what is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import Locked, Stopped, WriteFailed
from . import files
from .lock import JobLock
from .transfer_crew import Crew
from .transfer_keeper import Keeper
from .transfer_part import CLAIMED, PENDING, READY, STAMPED, Part, Remote

_RESERVE_BYTES = 64 << 20


@dataclass(frozen=True)
class Settings:
    """How a transfer goes about it.

    Attributes
    ----------
    connections : requests under way at once
    head_bytes, range_bytes : length of a file's first range and of the others; part of the index's identity
    span_bytes : consecutive ranges are asked for together up to this
    keep : False releases ranges when nobody needs them any more; see ``Transfer.claim``
    ahead_bytes : when releasing, how much may lie here before somebody asks for it
    cached : whether bytes should stay in the page cache because somebody reads them here
    """

    connections: int = 4
    head_bytes: int = 256 << 10
    range_bytes: int = 16 << 20
    span_bytes: int = 64 << 20
    keep: bool = True
    ahead_bytes: int = 1 << 30
    cached: bool = True


class Origin(Protocol):
    """Who hands out the bytes of remote files. Called from several threads."""

    def read(self, path: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Pairs of offset and bytes, in order, that cover ``start..stop``.

        One that cannot give a part of a file may begin at 0 and go on to the end, again and again.
        """

    def abort(self) -> None:
        """Make every call of ``read`` that is under way end soon."""


class Observer(Protocol):
    """Whoever is told how it goes. Called from several threads; must not block."""

    def came(self, n_bytes: int, path: str) -> None:
        """``n_bytes`` more of a file are durable."""

    def whole(self, path: str, where: Path) -> None:
        """A file is complete and its digest was checked."""

    def message(self, text: str) -> None:
        """Something a user should know."""


class Transfer:
    """The remote files of one model, some of them here, the others on their way.

    Parameters
    ----------
    folder : of blobs, see ``transfer_part``; need not exist
    remotes : the files
    present : files that lie elsewhere on this machine, by path; they are only read
    """

    def __init__(
        self,
        folder: Path,
        remotes: Sequence[Remote],
        origin: Origin,
        observer: Observer,
        settings: Settings = Settings(),
        present: Mapping[str, Path] | None = None,
    ) -> None:
        self.settings = settings
        self.origin, self.observer = origin, observer
        s, where = settings, present or {}
        by_key: dict[str, Part] = {}  # files of the same content are one
        for r in remotes:
            if r.key not in by_key:
                by_key[r.key] = Part(folder, r, s.head_bytes, s.range_bytes, where.get(r.path))
        self.parts = {r.path: by_key[r.key] for r in remotes}
        self.changed = threading.Condition()
        self.closing = False
        self.error: BaseException | None = None
        #: A process that releases ranges must not do so under a reader; looking at headers needs no lock, they stay.
        self.lock_to_read = False
        self.keeper = Keeper(self)
        self.crew = Crew(self)
        self._folder = folder
        self._lock: JobLock | None = None
        self._threads: list[threading.Thread] = []

    def path(self, name: str) -> Path:
        """Where the bytes of a file are now; ensure some of them first."""
        return self.parts[name].path

    def is_whole(self, name: str) -> bool:
        """Whether a file is complete and was checked."""
        return self.parts[name].whole

    def amended_ns(self, name: str) -> int:
        """When bytes that readers may have seen were last replaced; 0 for never."""
        return self.parts[name].amended_ns

    def missing_bytes(self, names: Sequence[str] | None = None) -> int:
        """Bytes of these files (default: all) that are still to come."""
        total = 0
        for part in {self.parts[name] for name in (self.parts if names is None else names)}:
            if not part.whole:
                spans = (part.cut.span(i) for i, state in enumerate(part.states) if state in (PENDING, CLAIMED))
                total += sum(stop - start for start, stop in spans)
        return total

    def ensure(self, name: str, offset: int, length: int) -> None:
        """Wait until these bytes are here.

        Raises
        ------
        NetworkError : and whatever else ended the transfer
        Locked : another process is fetching
        Stopped : the transfer was closed
        """
        part = self.parts[name]
        if part.whole:
            return
        if self.lock_to_read and self._lock is None:
            with self.changed:
                self._own()
        for index in part.cut.touched(offset, length):
            if part.states[index] != READY:
                self._ensure(part, index)

    @contextmanager
    def held(self, name: str, offset: int, length: int) -> Iterator[None]:
        """``ensure``, and the bytes are not released before the block ends."""
        part = self.parts[name]
        touched = part.cut.touched(offset, length)
        with self.changed:
            self.keeper.pin(part, touched)
        try:
            self.ensure(name, offset, length)
            yield
        finally:
            with self.changed:
                self.keeper.unpin(part, touched)

    def prefetch(self, name: str, offset: int, length: int) -> None:
        """Hint that these bytes will be read soon; fetches them before what nobody asked for."""
        part = self.parts[name]
        with self.changed:
            new = [(part, i) for i in part.cut.touched(offset, length) if not part.whole and part.states[i] == PENDING]
            if new and self._lock is not None:
                self.crew.hint(new)
                self._start()

    def fetch(self, names: Sequence[str] | None = None) -> None:
        """Begin to fetch these files whole (default: all), in this order; returns at once.

        Raises
        ------
        Locked : another process is fetching
        WriteFailed : the disk is too small
        """
        with self.changed:
            parts = [self.parts[n] for n in (self.parts if names is None else names)]
            if all(p.whole for p in parts):
                return
            self._own()
            self._check_space(parts)
            for part in parts:
                self.keeper.want_whole(part)
                self.crew.add((part, i) for i, state in enumerate(part.states) if state == PENDING)
            self._start()

    def wait(self, names: Sequence[str] | None = None, seconds: float | None = None) -> bool:
        """Wait until these files are whole (default: all), at most for ``seconds``; whether they are.

        Raises
        ------
        BadInput : a file's digest is not the one that the remote side lists
        NetworkError : and whatever else ended the transfer
        """
        parts = [self.parts[n] for n in (self.parts if names is None else names)]
        with self.changed:
            done = self.changed.wait_for(lambda: self.error is not None or self.keeper.settled(parts), seconds)
            self._raise_error()
            return done

    def claim(self, name: str, offset: int, length: int) -> None:
        """These bytes will be read once more; fetch them in the order of the claims and keep them until ``unclaim``."""
        part = self.parts[name]
        with self.changed:
            if part.whole:
                return
            for index in part.cut.touched(offset, length):
                if not self.keeper.is_wanted(part, index):
                    self.crew.add([(part, index)])
                self.keeper.claim(part, index)

    def unclaim(self, name: str, offset: int, length: int) -> None:
        """What was made of these bytes is durable. The last claim of a range releases it, unless ``settings.keep``."""
        part = self.parts[name]
        with self.changed:
            if part.whole:
                return
            for index in part.cut.touched(offset, length):
                self.keeper.unclaim(part, index)
            self.changed.notify_all()

    def start(self) -> None:
        """Begin to fetch what was claimed; with ``settings.keep`` everything else after it."""
        if self.settings.keep:
            self.fetch()
            return
        with self.changed:
            if any(not p.whole for p in self.parts.values()):
                self._own()
                self.keeper.start_releasing()
                self._start()

    def close(self) -> None:
        """End all threads and give the lock back. What is durable stays; readers that wait get Stopped."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.origin.abort()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def fail(self, error: BaseException) -> None:
        """End the transfer; whoever waits gets ``error``."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()

    def tell_whole(self, part: Part) -> None:
        """Pass on that ``part`` is complete; let other processes have the folder once nothing is missing any more."""
        for name, p in self.parts.items():
            if p is part:
                self.observer.whole(name, part.path)
        with self.changed:
            if self._lock is not None and all(p.whole for p in self.parts.values()):
                self._lock.close()
                self._lock = None

    def say(self, part: Part) -> None:
        """Pass the notes of ``part`` on."""
        while part.notes:
            self.observer.message(part.notes.pop(0))

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error
        if self.closing:
            raise Stopped("the transfer was stopped", "Run the same command again to go on.")

    def _ensure(self, part: Part, index: int) -> None:
        while True:
            with self.changed:
                while True:
                    if part.whole or part.states[index] == READY:
                        return
                    self._raise_error()
                    if part.states[index] == STAMPED:
                        part.states[index] = CLAIMED
                        break
                    if part.states[index] == PENDING and self._lock is None:
                        self._own()
                        continue
                    if part.states[index] == PENDING:
                        self.crew.hurry(part, index)
                        self._start()
                    self.changed.wait(1)
            good = False
            try:
                good = part.holds(index)
            finally:
                with self.changed:
                    part.states[index] = READY if good else PENDING
                    self.changed.notify_all()

    def _own(self) -> None:
        """Take the lock of the folder, and see what others brought until now."""
        if self._lock is not None:
            return
        files.make_dirs(self._folder)
        try:
            self._lock = JobLock(self._folder / "lock")
        except Locked as e:
            who = e.message.rpartition(": ")[2]
            raise Locked(f"another process is fetching into {self._folder}: {who}", e.hint) from None
        for part in self.parts.values():
            part.look()

    def _check_space(self, parts: Sequence[Part]) -> None:
        need = sum(p.remote.size - p.allocated_bytes() for p in set(parts) if not p.whole)
        free = files.free_bytes(self._folder)
        if need > 0 and need + _RESERVE_BYTES > free:
            raise WriteFailed(
                f"{self._folder}: {need + _RESERVE_BYTES:,} bytes are needed, {free:,} are free",
                "Free some space, move the cache with STREAMCONV_CACHE, or convert with --evict.",
            )

    def _start(self) -> None:
        """Bring the threads up; the caller holds the lock."""
        if not self._threads and not self.closing:
            bodies = [self.crew.run] * self.settings.connections + [self.keeper.run]
            names = [f"fetch-{i}" for i in range(self.settings.connections)] + ["keeper"]
            self._threads = [
                threading.Thread(target=b, name=n, daemon=True) for b, n in zip(bodies, names, strict=True)
            ]
            for thread in self._threads:
                thread.start()
        self.changed.notify_all()
