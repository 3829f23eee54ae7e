"""Decompressed frames of all files of a job, in bounded memory; those that were used last are kept."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from ..rows import Bytes

#: frames of at least so many bytes have pages of their own: from the heap, freed ones would stay with the process
_PAGED_BYTES = 128 << 10
#: a huge page
_HUGE_BYTES = 2 << 20
#: the system grants a process about 65 000 mappings
_MOST_FRAMES = 16_384
#: where no limit is given
DEFAULT_BYTES = 512 << 20


def empty(n_bytes: int) -> Bytes:
    """Memory for a frame, which goes back to the system with the last reference."""
    if n_bytes < _PAGED_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(n_bytes, np.uint8)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if n_bytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # All of it will be filled. A fault for each page takes a third of the time that unpacking a frame does.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


@dataclass
class _Frame:
    """One frame; ``data`` is None while it is decompressed. While there are ``readers`` it stays."""

    data: Bytes | None = None
    n_bytes: int = 0
    readers: int = 1


class FrameCache:
    """What is kept of decompressed frames; all methods may be called from several threads.

    Parameters
    ----------
    limit : bytes of all frames together, what decompressing them takes included
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self._changed = threading.Condition()
        self._frames: OrderedDict[tuple[int, int], _Frame] = OrderedDict()
        self._used = 0
        self._kept = 0
        self._largest = 0
        self._wanted = 0
        self._n_files = 0

    @property
    def most(self) -> int:
        """Bytes that it may hold at most."""
        return min(self.limit, self._wanted)

    @property
    def room(self) -> int:
        """The largest frame, with what decompressing it takes, that can be had beside all that was admitted for good."""
        return self.limit - self._kept

    def admit(self, content: int, largest: int, kept: int = 0) -> int | None:
        """The number of a new file, for ``frame``; None where there is no room for it.

        Parameters
        ----------
        content : bytes of all its frames
        largest : bytes of the largest frame, with what decompressing it takes, beside ``kept``
        kept : bytes that stay as long as the cache does
        """
        with self._changed:
            need = max(self._largest, largest)
            if self._kept + kept + need > self.limit:
                return None
            self._largest, self._kept = need, self._kept + kept
            self._wanted += content + largest
            self._n_files += 1
            return self._n_files

    @contextmanager
    def frame(self, file: int, number: int, n_bytes: int, beside: int, make: Callable[[], Bytes]) -> Iterator[Bytes]:
        """A frame, decompressed by ``make`` unless it is here; it stays until the context ends.

        A thread must hold one at a time: others wait for room.

        Parameters
        ----------
        n_bytes, beside : size of its content, and what decompressing takes beside it
        """
        found = self._get(file, number, n_bytes, beside, make)
        try:
            assert found.data is not None
            yield found.data
        finally:
            with self._changed:
                found.readers -= 1
                self._changed.notify_all()

    def _get(self, file: int, number: int, n_bytes: int, beside: int, make: Callable[[], Bytes]) -> _Frame:
        key, need = (file, number), n_bytes + beside
        with self._changed:
            while True:
                found = self._frames.get(key)
                if found is not None and found.data is not None:
                    found.readers += 1
                    self._frames.move_to_end(key)
                    return found
                if found is None and self._make_room(need):
                    break
                self._changed.wait()
            new = self._frames[key] = _Frame(n_bytes=need)
            self._used += need
        try:
            data = make()
        except BaseException:
            with self._changed:
                self._drop(key)
                self._changed.notify_all()
            raise
        with self._changed:
            new.data, new.n_bytes = data, n_bytes
            self._used -= beside
            self._changed.notify_all()
        return new

    def forget(self, file: int, numbers: range) -> None:
        """Give up these frames, unless they are being read."""
        with self._changed:
            for key in ((file, number) for number in numbers):
                if key in self._frames and not self._frames[key].readers:
                    self._drop(key)
            self._changed.notify_all()

    def _make_room(self, n_bytes: int) -> bool:
        """Give up what was not used for longest until so many bytes are free; whether they are."""
        while self._used + n_bytes > self.limit or len(self._frames) >= _MOST_FRAMES:
            oldest = next((key for key, frame in self._frames.items() if not frame.readers), None)
            if oldest is None:
                return False
            self._drop(oldest)
        return True

    def _drop(self, key: tuple[int, int]) -> None:
        self._used -= self._frames.pop(key).n_bytes
