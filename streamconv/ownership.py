"""Whether what has a name may be used: ours, no link, of the expected kind, and not writable by others.

Whoever can write a job folder, a store or a cache decides what is believed and where bytes go. In a folder that several users
share, somebody else may have taken our names first: a folder, a link to a file of ours, a FIFO. So every file with a name that
others can guess is opened here, without following a link and without waiting, and looked at before it is used.

Trusted owners are this user and root; for root also the owner of the parent folder, so that root may go on with a user's job.
Filesystems without owners and modes (FAT, many network shares) show the same ones for everything. What looks there as a file
does that this process has just made (``like``) is ours as far as anybody can tell.
Not protected against: the owner of a parent folder, who may rename what lies in it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .errors import NoPermission

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
_WRITABLE = "can be written by others"


def folder_fault(path: Path, like: os.stat_result | None = None) -> str:
    """Why the folder ``path`` must not be used, "" where it may be.

    Parameters
    ----------
    like : status of a file that this process has just made beside it with mode 0600

    Raises
    ------
    OSError : it is not there, or may not be looked at
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"is a symbolic link to {os.readlink(path)}"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid not in _trusted(path.parent, like):
        return f"belongs to user {found.st_uid}, not to {os.geteuid()}"
    if found.st_mode & _OTHERS_WRITE and not _is_modeless(like):
        return f"{_WRITABLE} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def path_fault(path: Path) -> str:
    """Why somebody else could replace what is in the folder ``path``, "" where nobody can: it and every folder above it is ours.

    A sticky folder such as /tmp may hold it, as others cannot rename what lies there.
    """
    real = Path(os.path.realpath(path))
    fault = folder_fault(real)
    if fault:
        return f"{real} {fault}"
    for folder in real.parents:
        found = os.stat(folder)
        if found.st_uid not in _trusted(folder):
            return f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}"
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            return f"{folder} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _trusted(parent: Path, like: os.stat_result | None = None) -> set[int]:
    me = os.geteuid()
    trusted = {me, 0} if like is None else {me, 0, like.st_uid}
    return {*trusted, os.stat(parent).st_uid} if me == 0 else trusted


def _is_modeless(like: os.stat_result | None) -> bool:
    """Whether the filesystem shows other modes than those that were asked for."""
    return like is not None and stat.S_IMODE(like.st_mode) & ~0o600 != 0


def open_regular(
    path: Path,
    flags: int,
    mode: int = 0o666,
    *,
    links: int = 1,
    twin: str = "",
    owned: bool = True,
    like: os.stat_result | None = None,
) -> int:
    """``os.open`` of a regular file that is ours, in a folder that is: no link is followed, no FIFO waited for.

    Parameters
    ----------
    links : most names it may have
    twin : pattern of names in the same folder, one of which it may have besides
    owned : False where it may belong to anybody and be written by anybody, as it is only read
    like : status of a file that this process has just made beside it with mode 0600

    Raises
    ------
    NoPermission : it is something else; names it
    OSError : as ``os.open``
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise not_ours(path, f"is a symbolic link to {os.readlink(path)}") from None
        if e.errno == errno.ENXIO:  # a socket, or a FIFO that nobody reads
            raise not_ours(path, "is not a regular file") from None
        raise
    if flags & os.O_EXCL:
        return fd  # we have just made it, whoever it is said to belong to
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise not_ours(path, "is not a regular file")
        if owned:
            _require_ours(path, found, like)
        if twin and found.st_nlink == links + 1:
            links += any(os.path.samestat(os.lstat(p), found) for p in path.parent.glob(twin))
        if found.st_nlink > links:
            raise not_ours(path, f"has {found.st_nlink} names: a hard link to it lies somewhere else")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_ours(path: Path, found: os.stat_result, like: os.stat_result | None) -> None:
    if found.st_uid not in _trusted(path.parent, like):
        raise not_ours(path, f"belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & _OTHERS_WRITE and not _is_modeless(like) and _others_reach(path):
        raise not_ours(path, f"{_WRITABLE} (mode {stat.S_IMODE(found.st_mode):04o})")


def _others_reach(path: Path) -> bool:
    return all(os.stat(folder).st_mode & _OTHERS_ENTER for folder in path.absolute().parents)


def not_ours(path: Path, fault: str) -> NoPermission:
    """The error that names ``path``, its ``fault``, and what to do."""
    what = "Somebody else may have put it there: look at it, and remove it or choose another name."
    if fault.startswith(_WRITABLE):
        what = f"If nobody else has written to it, `chmod -R go-w {path}`; else remove it, or choose another name."
    return NoPermission(f"{path} {fault}", what)
