"""The slots of an index as an array: a shared mapping that cannot be written.

What ``pwrite`` stores in the file shows in the mapping at once, as both are the same pages; see ``journal`` for why slots are not
stored through it. A mapping reports errors by a fatal signal, so before every access its pages are loaded by a
call that reports it by an error (``MADV_POPULATE_READ`` of Linux 5.14, else a read). Where a filesystem refuses to map, the slots
are read.
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import WriteFailed
from . import files

#: one slot of 128 bytes; never straddles a sector or a page. No byte is without a field, as numpy copies fields only.
SLOT = np.dtype(
    [
        ("magic", "<u4"), ("state", "u1"), ("zeros", "V3"), ("chunk", "<u4"), ("file", "<u4"), ("offset", "<u8"),
        ("length", "<u8"), ("rows", "<u8"), ("salt", "<u8"), ("nonce", "<u8"), ("time", "<f8"), ("digest", "V16"),
        ("sum_squared_error", "<f8"), ("max_error", "<f4"), ("nonfinite", "<u4"), ("generation", "<u8"), ("source", "V16"),
        ("more_zeros", "V4"), ("crc", "<u4"),
    ]
)  # fmt: skip
_CRC_AT = 124
_POPULATE_READ = 22

SlotArray = npt.NDArray[np.void]


class Slots:
    """The slots of one open index file.

    Parameters
    ----------
    fd : stays open for as long as this is used
    start : byte of the file where the first slot is
    n : how many there are

    Raises
    ------
    WriteFailed : they cannot be read
    """

    def __init__(self, fd: int, start: int, n: int, path: Path) -> None:
        self._fd, self._start, self._n, self._path = fd, start, n, path
        self._mapping: mmap.mmap | None = None
        self._by_pread()  # an error of the disk is one here, on every system
        try:
            self._mapping = mmap.mmap(fd, start + n * SLOT.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError):  # a filesystem without mappings, or a file that was cut just now
            self._mapping = None

    def read(self) -> SlotArray:
        """What they hold now: a copy, SLOT[n].

        Raises
        ------
        WriteFailed : the file cannot be read, or is shorter than it was
        """
        if self._mapping is None or not self._brought_in():
            return self._by_pread()
        return np.frombuffer(self._mapping[self._start : self._start + self._n * SLOT.itemsize], SLOT)

    def _by_pread(self) -> SlotArray:
        size = self._n * SLOT.itemsize
        data = files.pread_exactly(self._fd, size, self._start, self._path)
        if len(data) < size:
            raise self._cut()
        return np.frombuffer(data, SLOT)

    def _brought_in(self) -> bool:
        """Whether all pages of the mapping are in memory; False where the system cannot tell."""
        assert self._mapping is not None
        if os.fstat(self._fd).st_size < self._start + self._n * SLOT.itemsize:
            raise self._cut()
        try:
            self._mapping.madvise(_POPULATE_READ)
        except OSError as e:
            if e.errno == errno.EINVAL:
                return False
            raise WriteFailed(
                f"{self._path}: its slots cannot be read: {e.strerror}",
                "Check the disk; then run the same command again.",
            ) from e
        return True

    def _cut(self) -> WriteFailed:
        return WriteFailed(
            f"{self._path} was truncated to {os.fstat(self._fd).st_size:,} bytes by another program while in use",
            "Run the same command again; the chunks that it recorded are computed again.",
        )


def intact(slots: SlotArray) -> npt.NDArray[np.bool_]:
    """Which of ``slots`` end with the CRC-32 of all before; pending ones, which are all zero, do not."""
    found: npt.NDArray[np.bool_] = _checksums(slots) == slots["crc"]
    return found


def sealed(slots: SlotArray) -> bytes:
    """``slots`` with their checksums."""
    slots["crc"] = _checksums(slots)
    return slots.tobytes()


def _checksums(slots: SlotArray) -> npt.NDArray[np.uint32]:
    data, size, crc = slots.tobytes(), SLOT.itemsize, zlib.crc32
    return np.array([crc(data[at : at + _CRC_AT]) for at in range(0, len(data), size)], np.uint32)
