"""One input file: a read-only mapping (or positioned reads), page hints, and proof that it is still the same file.

The mapping is never writable, so no bug can damage an input. What a mapping cannot do is report an I/O error: a bad sector,
a vanished network share or a file cut short by someone else arrive as SIGBUS. ``io="pread"`` reads through the descriptor
instead; then they are errors with a file and an offset.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from ..errors import BadInput, InputChanged, NoResources, exhausted, raise_exhausted, unreadable
from ..rows import Bytes, File
from .checkpoint import InputFile

IoMode = Literal["mmap", "pread"]

#: pages of the data that tell two files of the same header apart: some milliseconds even from a cold disk
_SAMPLE_BYTES = 4096
_SAMPLES = 18
#: bytes of one hint; see ``MappedFile.prefetch``
_PREFETCH_BYTES = 512 << 10


class MappedFile(File):
    """A regular file opened for reading.

    Parameters
    ----------
    path : the file; symbolic links are followed
    io : ``mmap`` hands out views of the page cache, ``pread`` copies

    Errors: InputMissing, NoPermission, NoResources, or BadInput for what is not a regular file.
    All methods may be called from several threads. The descriptor closes with the last reference; views keep the mapping.
    """

    def __init__(self, path: Path, io: IoMode = "mmap") -> None:
        self.path = path
        self.io = io
        self._fd = _open(path)
        weakref.finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{path} is not a regular file")
        self.size = status.st_size
        self._identity = _identity(status)
        self._map: mmap.mmap | None = None
        self._bytes = np.empty(0, np.uint8)
        if io == "mmap" and self.size:
            try:
                self._map = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
            except OSError as e:
                if e.errno == errno.ENOMEM:
                    what = f"{path} cannot be mapped: there are not enough addresses for its {self.size:,} bytes"
                    raise NoResources(what, "Read it with --io=pread, or allow more memory (ulimit -v).") from None
                e.filename = str(path)
                raise_exhausted(e)
                raise BadInput(f"{path} cannot be mapped: {e.strerror}", "Read it with --io=pread.") from None
            self._bytes = np.frombuffer(self._map, np.uint8)

    def view(self, offset: int, length: int) -> Bytes:
        """``length`` bytes from ``offset`` as a read-only uint8 array: a view (``mmap``) or a fresh copy (``pread``).

        BadInput when the range leaves the file.
        """
        self._check(offset, length)
        if self._map is not None:
            return self._bytes[offset : offset + length]
        out = np.empty(length, np.uint8)
        self.read_into(offset, out)
        out.flags.writeable = False
        return out

    def read_into(self, offset: int, out: Bytes) -> None:
        """Fill the C-contiguous ``out`` from ``offset`` on by positioned reads, whatever the mode.

        BadInput names the offset of an I/O error; InputChanged when the file has become shorter.
        """
        self._check(offset, out.nbytes)
        buffer = out.data.cast("B")
        done = 0
        while done < len(buffer):
            try:
                n = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as e:
                raise exhausted(e) or BadInput(
                    f"{self.path} cannot be read at byte {offset + done}: {e.strerror}"
                ) from None
            if not n:
                raise InputChanged(f"{self.path} now ends at byte {offset + done}, it had {self.size} bytes")
            done += n

    def prefetch(self, offset: int, length: int) -> None:
        """Start reading these bytes into the page cache, without waiting for them."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        stop = min(offset + length, self.size)
        # A hint that fails (file systems without support) costs time, never bytes.
        with suppress(OSError):
            if hasattr(os, "posix_fadvise"):
                # Linux reads no more per call than the device takes in one request, and posix_fadvise, unlike madvise,
                # lets other threads run meanwhile.
                for at in range(start, stop, _PREFETCH_BYTES):
                    os.posix_fadvise(self._fd, at, min(_PREFETCH_BYTES, stop - at), os.POSIX_FADV_WILLNEED)
            elif self._map is not None and hasattr(mmap, "MADV_WILLNEED") and stop > start:
                self._map.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def release(self, offset: int, length: int) -> None:
        """Give the whole pages inside the range back to the system.

        Pages on the edges are kept, a neighbour may be reading them. Bytes that are needed after all are read again, so this
        never changes a result.
        """
        self._release(offset, length)

    def unmap(self, offset: int, length: int) -> None:
        """Take the whole pages inside the range out of this process; they stay in the page cache."""
        self._release(offset, length, cached=True)

    def _release(self, offset: int, length: int, cached: bool = False) -> None:
        """Unmap the pages and, unless they are to stay ``cached``, drop them; in this order: fadvise skips mapped pages."""
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = offset + length
        if stop < self.size:
            stop = stop // mmap.PAGESIZE * mmap.PAGESIZE
        if stop <= start:
            return
        # As in prefetch: the pages just stay a little longer.
        with suppress(OSError):
            if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)
            if hasattr(os, "posix_fadvise") and not cached:
                os.posix_fadvise(self._fd, start, stop - start, os.POSIX_FADV_DONTNEED)

    def describe(self, data_start: int) -> InputFile:
        """The file's identity, with a digest of its header (all bytes before ``data_start``) and a sample of its data."""
        device, inode, size, mtime_ns, ctime_ns = self._identity
        return InputFile(
            name=self.path.name,
            path=self.path,
            size=size,
            digest=self.sample(data_start),
            device=device,
            inode=inode,
            mtime_ns=mtime_ns,
            ctime_ns=ctime_ns,
        )

    def sample(self, data_start: int) -> str:
        """XXH3-128 over the size, the header, and 18 pages spread evenly over the data, the first and last included."""
        digest = xxhash.xxh3_128(self.size.to_bytes(8, "little"))
        digest.update(self.view(0, data_start).data)
        page = np.empty(min(_SAMPLE_BYTES, self.size - data_start), np.uint8)
        last = self.size - len(page)
        for offset in sorted({data_start + (last - data_start) * i // (_SAMPLES - 1) for i in range(_SAMPLES)}):
            # Positioned reads: a fault in the mapping would drag in a whole read-ahead window each time.
            self.read_into(offset, page)
            digest.update(page.data)
        return str(digest.hexdigest())

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BadInput(f"{self.path}: bytes {offset}..{offset + length} are past its end, it has {self.size} bytes")


def _open(path: Path) -> int:
    try:
        # O_NONBLOCK: a pipe in place of a file must not hang us before we can refuse it.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from None


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
