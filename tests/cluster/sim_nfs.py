"""NFS in one process: a server's files, and clients that cache pages, behind the calls that ``engine.files`` makes.

What a client does, as the kernel's (fs/nfs/write.c, fs/nfs/file.c):

* A write to a part of a page that is not in its cache: of a file that is open for reading too, the page is read first. Else
  only the range that was written is known.
* Where the page is in the cache whole, a write to a part of it makes all of it dirty, and all of it is sent; not so with O_DSYNC.
* Dirty pages are sent at some time, in any order; by fdatasync those of this client, and of no other. With O_DSYNC what was
  written is sent, and nothing else, before the call returns.
* A page in the cache is read from there, however old, until the file is opened anew and the server's has changed since.

Everything that happens by chance happens in calls of workers, which tests make one after the other, so it follows from the seed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from streamconv.engine import files

PAGE = 4096


def _alone(method: Any) -> Any:
    """``method`` by one thread at a time."""

    @functools.wraps(method)
    def locked(self: SimNfs, *args: Any) -> Any:
        with self._lock:
            return method(self, *args)

    return locked


class Page:
    """A page in a client's cache: ``dirty`` is the range that will be sent, ``whole`` whether all of ``data`` is known."""

    def __init__(self) -> None:
        self.data = bytearray(PAGE)
        self.whole = False
        self.dirty: tuple[int, int] | None = None


class SimNfs:
    """Stands in for ``os`` in ``engine.files`` within ``mounted``.

    Attributes
    ----------
    read_first : pages that workers had to read before they wrote to them, as of files that are open for reading too
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._caches: dict[int, dict[tuple[int, int], Page]] = {}
        self._versions: dict[int, int] = {}
        self._seen: dict[tuple[int, int], int] = {}
        self._sent: dict[int, int] = {}
        self._sizes: dict[tuple[int, int], int] = {}
        self._of_thread = threading.local()
        self._lock = threading.RLock()
        self._drops = True
        self.read_first = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @property
    def client(self) -> int:
        """The client that this thread runs on."""
        found: int = getattr(self._of_thread, "client", 0)
        return found

    @contextmanager
    def on(self, client: int) -> Iterator[None]:
        before = self.client
        self._of_thread.client = client
        try:
            yield
        finally:
            self._of_thread.client = before

    @contextmanager
    def mounted(self, dsync: bool = True, write_only: bool = True, fresh: bool = True) -> Iterator[None]:
        """Let part files lie here; what workers do about it may be left out: the flags that they open them with, or that what
        they know of a file is asked for anew when it is opened, and its pages are dropped before they are read.
        """
        real = files.open_own
        self._drops = fresh

        def open_own(path: Any, flags: int, *args: Any, **named: Any) -> int:
            if not dsync:
                flags &= ~os.O_DSYNC
            if not write_only and flags & os.O_WRONLY:
                flags = flags & ~os.O_WRONLY | os.O_RDWR
            fd = real(path, flags, *args, **named)
            if fresh:
                self._revalidate(os.fstat(fd).st_ino)
            return fd

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "os", self)
            patch.setattr(files, "open_own", open_own)
            yield
            for client in list(self._caches):
                with self.on(client):
                    self._flush(None)

    def _cache(self) -> dict[tuple[int, int], Page]:
        return self._caches.setdefault(self.client, {})

    @_alone
    def _revalidate(self, inode: int) -> None:
        version = self._versions.get(inode, 0)
        if self._seen.get((self.client, inode)) != version:
            cache = self._cache()
            for key in [k for k, page in cache.items() if k[0] == inode and page.dirty is None]:
                del cache[key]
            self._seen[self.client, inode] = version

    def _send(self, fd: int, inode: int, data: bytes, offset: int) -> None:
        os.pwrite(fd, data, offset)
        self._versions[inode] = self._versions.get(inode, 0) + 1

    def _inode(self, fd: int) -> int:
        """The number of the file, which no other file gets as long as this lasts."""
        inode = os.fstat(fd).st_ino
        if inode not in self._sent:
            self._sent[inode] = os.dup(fd)
        return inode

    def _size(self, inode: int) -> int:
        """How long this client takes the file to be: what it has not sent counts, too."""
        return max(os.fstat(self._sent[inode]).st_size, self._sizes.get((self.client, inode), 0))

    # What ``engine.files`` calls.

    @_alone
    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        inode, flags, view = self._inode(fd), fcntl.fcntl(fd, fcntl.F_GETFL), bytes(data)
        self._sizes[self.client, inode] = max(self._size(inode), offset + len(view))
        at = 0
        while at < len(view):
            number, start = divmod(offset + at, PAGE)
            part = view[at : at + PAGE - start]
            self._write_page(fd, inode, number, start, part, flags)
            at += len(part)
        if self.client and self._rng.random() < 0.3:
            self._flush_some()
        return len(view)

    def _write_page(self, fd: int, inode: int, number: int, start: int, part: bytes, flags: int) -> None:
        cache, stop = self._cache(), start + len(part)
        page = cache.get((inode, number))
        if page is None:
            page = cache[inode, number] = Page()
            if len(part) == PAGE:
                page.whole = True
            elif flags & os.O_ACCMODE == os.O_RDWR:
                self.read_first += self.client > 0
                page.data[:] = os.pread(fd, PAGE, number * PAGE).ljust(PAGE, b"\0")
                page.whole = True
        page.data[start:stop] = part
        if flags & os.O_DSYNC:
            self._send(fd, inode, part, number * PAGE + start)
            if not page.whole and page.dirty is None:
                del cache[inode, number]
            return
        if page.whole:
            start, stop = 0, PAGE
        elif page.dirty is not None and (start > page.dirty[1] or stop < page.dirty[0]):
            self._flush_page(inode, number)
        page.dirty = (min(start, page.dirty[0]), max(stop, page.dirty[1])) if page.dirty else (start, stop)

    @_alone
    def pread(self, fd: int, size: int, offset: int) -> bytes:
        inode, found = self._inode(fd), bytearray()
        end = self._size(inode)
        while size > 0 and offset < end:
            number, start = divmod(offset, PAGE)
            page = self._cache().get((inode, number))
            if page is not None and not page.whole:
                self._flush_page(inode, number)
                page = None
            if page is None:
                page = self._cache()[inode, number] = Page()
                page.data[:] = os.pread(fd, PAGE, number * PAGE).ljust(PAGE, b"\0")
                page.whole = True
            part = bytes(page.data[start : start + min(size, PAGE - start, end - offset)])
            found += part
            size, offset = size - len(part), offset + len(part)
        return bytes(found)

    @_alone
    def fdatasync(self, fd: int) -> None:
        self._flush(os.fstat(fd).st_ino)
        os.fdatasync(fd)

    @_alone
    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        inode = os.fstat(fd).st_ino
        for key in [k for k, page in self._cache().items() if k[0] == inode and page.dirty is None and self._drops]:
            del self._cache()[key]

    def _flush_page(self, inode: int, number: int) -> None:
        page = self._cache().get((inode, number))
        if page is not None and page.dirty is not None:
            start, stop = page.dirty
            fd = self._sent[inode]
            end = self._size(inode)
            data = bytes(page.data[start : min(stop, end - number * PAGE)])
            target = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
            try:
                self._send(target, inode, data, number * PAGE + start)
            finally:
                os.close(target)
            page.dirty = None
            if not page.whole:
                del self._cache()[inode, number]

    def _flush(self, inode: int | None) -> None:
        for key in list(self._cache()):
            if inode is None or key[0] == inode:
                self._flush_page(*key)

    def _flush_some(self) -> None:
        """Some dirty pages of some workers go to the server now."""
        for client, cache in sorted(self._caches.items()):
            if client == 0:
                continue
            with self.on(client):
                for key in self._rng.sample(sorted(cache), len(cache) // 3):
                    self._flush_page(*key)

    def end(self) -> None:
        for fd in self._sent.values():
            os.close(fd)
