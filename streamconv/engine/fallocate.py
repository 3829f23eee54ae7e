"""Reserving and giving back disk space by the system call itself.

Python has no binding for ``fallocate`` with a mode, and where a filesystem cannot reserve, as NFS before 4.2, glibc's
``posix_fallocate`` writes a byte into every block instead: ten million writes for a file of 40 GB.
"""

from __future__ import annotations

import ctypes
import errno
import os


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) of Linux. Raises OSError, with ENOSYS where the system has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
