"""Renames that replace nothing, or swap two names, and places where no rename works.

``renameat2`` on Linux, ``renamex_np`` on macOS; Python has neither.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

NO_REPLACE, EXCHANGE = 1, 2

_AT_FDCWD = -100
#: macOS calls the same two RENAME_EXCL and RENAME_SWAP
_DARWIN_FLAGS = {NO_REPLACE: 4, EXCHANGE: 2}
#: the kernel or the filesystem has no such rename
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@cache
def _call() -> Any:
    """The C function, None where there is none."""
    try:
        found = getattr(ctypes.CDLL(None, use_errno=True), "renamex_np" if sys.platform == "darwin" else "renameat2")
    except (OSError, AttributeError):
        return None
    found.restype = ctypes.c_int
    if sys.platform == "darwin":
        found.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint]
    else:
        found.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return found


def rename_with(flag: int, old: Path, new: Path) -> bool:
    """Rename ``old`` to ``new`` as ``flag`` says; False where the system cannot, and nothing has happened.

    Parameters
    ----------
    flag : NO_REPLACE (FileExistsError when ``new`` is there) or EXCHANGE (both are there, each gets the other's name)

    Raises
    ------
    OSError : as ``os.rename``
    """
    call = _call()
    if call is None:
        return False
    a, b = os.fsencode(old), os.fsencode(new)
    if sys.platform == "darwin":
        failed = call(a, b, _DARWIN_FLAGS[flag])
    else:
        failed = call(_AT_FDCWD, a, _AT_FDCWD, b, flag)
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(old), None, str(new))


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted at ``path``, be it a single file or a folder of the same filesystem."""
    real = os.path.join(os.path.realpath(path.parent), path.name)
    try:
        with open("/proc/self/mountinfo", "rb") as listed:
            points = {line.split()[4] for line in listed}
    except (OSError, IndexError):
        return os.path.ismount(path)
    escaped = os.fsencode(real)
    for c in b"\\ \t\n":  # the backslash first, as the others are escaped with it
        escaped = escaped.replace(bytes([c]), b"\\%03o" % c)
    return escaped in points
