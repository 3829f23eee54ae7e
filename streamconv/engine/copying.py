"""Copying a range of one file to another by the system, sharing the blocks of the disk where it can."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import raise_exhausted
from . import files

#: what filesystems that share blocks between files have as the size of these
_BLOCK = 4096
_COPY_BYTES = 256 << 10


def copy_range(source: int, start: int, fd: int, offset: int, length: int, path: Path) -> int:
    """Copy ``length`` bytes of the file ``source`` from ``start`` on to ``offset`` of ``fd``; how many could be read of it.

    Linux copies in the kernel, and where the filesystem can (Btrfs, XFS) both files share the blocks of the disk, if the ranges
    lie alike in their blocks. Not checked: that the bytes are right, or that the source is not written to meanwhile.

    Raises
    ------
    WriteFailed : they cannot be written
    """
    # Blocks are shared whole: what lies before the first of them is copied for itself.
    head = min(length, -offset % _BLOCK) if start % _BLOCK == offset % _BLOCK else 0
    done = _by_hand(source, start, fd, offset, head, path)
    if done < head:
        return done
    while done < length and (n := _in_kernel(source, start + done, fd, offset + done, length - done)):
        done += n
    return done + _by_hand(source, start + done, fd, offset + done, length - done, path)


def _in_kernel(source: int, start: int, fd: int, offset: int, length: int) -> int:
    """How many bytes the system copied; 0 where it cannot, for whatever reason."""
    try:
        return os.copy_file_range(source, fd, length, start, offset)
    except (OSError, AttributeError):  # only Linux has it; of errors, the usual way will tell which file has them
        return 0


def _by_hand(source: int, start: int, fd: int, offset: int, length: int, path: Path) -> int:
    done = 0
    while done < length:
        try:
            data = os.pread(source, min(_COPY_BYTES, length - done), start + done)
        except OSError as e:
            raise_exhausted(e)
            break
        if not data:
            break
        files.pwrite_all(fd, data, offset + done, path)
        done += len(data)
    return done
