"""What a filesystem can do, found out by trying: how it shows what we make, and whether names can be exchanged at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from .renames import is_mount_point

#: why a name cannot be given to a folder that holds something: the answers where nothing else is wrong
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR)


def made_in(folder: Path) -> os.stat_result | None:
    """The status of a new file of this process in ``folder``, made with mode 0600 and removed again; None where it cannot be.

    Of a file and not of a folder, as that could be exchanged before it is looked at; without a name where the system can.
    """
    probe = folder / f".streamconv.{os.urandom(4).hex()}"
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        fd = os.open(folder, flags | os.O_TMPFILE, 0o600)
    except (OSError, AttributeError):
        try:
            fd = os.open(probe, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            return None
    try:
        return os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
        with suppress(OSError):
            os.unlink(probe)


def rename_fault(inside: Path, final: Path) -> str:
    """Why what is in the job folder ``inside`` cannot be renamed to ``final``, "" as far as can be told without doing it.

    Raises
    ------
    OSError : it cannot be tried
    """
    if os.lstat(inside).st_dev != os.stat(final.parent).st_dev:
        return f"{inside} is on another filesystem than {final.parent}"
    for place in (inside, final):
        if is_mount_point(place):
            return f"{place} is a mount point, which cannot be renamed"
    probe = inside / f"probe.{os.urandom(4).hex()}"
    os.mkdir(probe, 0o700)
    try:
        os.mkdir(probe / "full", 0o700)
        for path in (inside / "out", final):
            fault = _rename_fault(path, probe)
            if fault:
                return fault
    finally:
        for folder in (probe / "full", probe):
            with suppress(FileNotFoundError):
                os.rmdir(folder)
    return ""


def _rename_fault(path: Path, full: Path) -> str:
    """Why ``path`` cannot lose its name: what is answered but that the folder ``full``, which is not empty, cannot be replaced.

    Such as: it is immutable, it is another user's in a sticky folder, it is a folder of a lower layer of overlayfs.
    """
    try:
        os.rename(path, full)
    except FileNotFoundError:
        return ""
    except OSError as e:
        return "" if e.errno in _TAKEN else f"{path} cannot be renamed: {os.strerror(e.errno or 0)}"
    os.rename(full, path)  # a filesystem that replaces full folders; its others are as they should be
    return ""
