"""What the system's refusals mean to a user: which error, which exit code, what to do next."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CannotCreate, NoPermission, StreamconvError, WriteFailed, exhausted


class NameInTheWay(CannotCreate):
    """A name is there that should be new, or gone that was there: perhaps another process is at work in the same folder."""


#: what the disk answers when it fails; other answers to a rename mean that it cannot be
_FAILING_DISK = (
    errno.EIO,
    errno.EROFS,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOMEM,
    errno.EINTR,
)


def failure(
    e: OSError, path: Path, what: str, needed_bytes: int = 0, is_open: bool = False, is_rename: bool = False
) -> StreamconvError:
    """The user's error for a failed system call on ``path``.

    Parameters
    ----------
    what : what failed
    needed_bytes : that there should have been room for
    is_open : the file had been opened for writing, so that it is no matter of permission any more
    is_rename : a finished file was to get its name; what the disk does not fail at could not have succeeded
    """
    ran_out = None if is_open else exhausted(e)  # of a file that is open: a failed write, whatever the reason
    if ran_out is not None:
        return ran_out
    reason = os.strerror(e.errno) if e.errno else str(e)
    if is_rename and e.errno == errno.EPERM:
        return CannotCreate(f"{path}: {what}: {reason}", "Another user's file in a sticky folder, or an immutable one?")
    is_open |= is_rename
    # To a file that could be opened for writing, EROFS means that the kernel gave up on a failing disk.
    if not is_open and e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NoPermission(f"{path}: {what}: {reason}", "Choose an output folder you may write to.")
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        need = f" ({needed_bytes:,} bytes are needed)" if needed_bytes else ""
        return WriteFailed(f"{path}: {what}: {reason}{need}", "Free some space and run the same command again.")
    if e.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
        return NameInTheWay(f"{path}: {what}: {reason}")
    if e.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EXDEV, errno.EBUSY):
        return CannotCreate(f"{path}: {what}: {reason}")
    if is_rename and e.errno not in _FAILING_DISK:
        return CannotCreate(f"{path}: {what}: {reason}")
    return WriteFailed(f"{path}: {what}: {reason}", "Check the device, then run the same command again.")


@contextmanager
def guard(
    path: Path, what: str, needed_bytes: int = 0, is_open: bool = False, is_rename: bool = False
) -> Iterator[None]:
    """Raise ``failure`` for every OSError inside."""
    try:
        yield
    except OSError as e:
        raise failure(e, path, what, needed_bytes, is_open, is_rename) from e
