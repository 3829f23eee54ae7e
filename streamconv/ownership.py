"""Whether what has a name may be used: ours, no link, of the expected kind, and not writable by others.

A user who can write a job folder, a store or a cache decides what is trusted and where bytes go. In a folder that several users
share, another user may have taken our names first: a folder, a link to a file of ours, a FIFO. So every file with a name that
others can guess is opened here, without following a link and without waiting, and looked at before it is used.

Trusted owners are this user and root; for root also the owner of the parent folder, so that root may go on with a user's job.
Filesystems without owners and modes (FAT, many network shares) show the same ones for everything. What looks there as a file
does that this process has just made (``like``) is ours as far as can be told.
Not protected against: the owner of a parent folder, who may rename what lies in it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from .errors import NoPermission

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
_WRITABLE = "can be written by others"


class Foreign(NoPermission):
    """It belongs to others, or they can write to it, as far as the filesystem shows."""


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


def path_fault(path: Path, *, shared: bool = False) -> str:
    """Why others could exchange what is in the folder ``path``, "" where none can: it and all above it are ours or root's.

    Stricter than ``folder_fault``, for what decides which code runs: root trusts no one else. A link is followed where no one else
    could have put it there; callers then use ``os.path.realpath``. A sticky folder such as /tmp may hold the folder, as
    others cannot rename what lies there, and so may one that is writable for a group of this user alone.

    Parameters
    ----------
    shared : ``path`` is only to hold another folder, so it, too, may be sticky

    Raises
    ------
    OSError : it is not there, or may not be looked at
    """
    path, real = path.absolute(), Path(os.path.realpath(path))
    # From the root on: what is in a folder only stays as it was looked at if the folder stays.
    for folder in dict.fromkeys((*reversed(path.parents), path, *reversed(real.parents), real)):
        found = os.lstat(folder)
        if found.st_uid not in {os.geteuid(), 0}:
            return f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}"
        if stat.S_ISLNK(found.st_mode):
            continue
        if not stat.S_ISDIR(found.st_mode):
            return f"{folder} is not a folder"
        sticky = found.st_mode & stat.S_ISVTX and (shared or folder != real)
        if _others_write(found) and not sticky:
            return f"{folder} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _others_write(found: os.stat_result) -> bool:
    """Whether others can write it: a group that many systems make for each user, and with no one else in it, does not count."""
    if not found.st_mode & _OTHERS_WRITE or found.st_mode & stat.S_IWOTH:
        return bool(found.st_mode & stat.S_IWOTH)
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    return (user.pw_gid, user.pw_name) != (found.st_gid, group.gr_name) or not set(group.gr_mem) <= {user.pw_name}


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
    owned: bool = True,
    like: os.stat_result | None = None,
) -> int:
    """``os.open`` of a regular file that is ours, in a folder that is: no link is followed, no FIFO waited for.

    Parameters
    ----------
    links : most names it may have
    owned : False where it may belong to any user and be writable by all, as it is only read
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
        if e.errno == errno.ENXIO:  # a socket, or a FIFO without a reader
            raise not_ours(path, "is not a regular file") from None
        raise
    if flags & os.O_EXCL:
        return fd  # we have just created it, whatever owner is reported
    try:
        _require_ours(path, os.fstat(fd), links, owned, like)
    except BaseException:
        os.close(fd)
        raise
    return fd


def status_of_regular(path: Path, *, links: int = 1, like: os.stat_result | None = None) -> os.stat_result:
    """``os.lstat`` of a file that ``open_regular`` would open.

    Raises
    ------
    NoPermission, OSError : as ``open_regular``
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise not_ours(path, f"is a symbolic link to {os.readlink(path)}")
    _require_ours(path, found, links, like=like)
    return found


def _require_ours(
    path: Path, found: os.stat_result, links: int, owned: bool = True, like: os.stat_result | None = None
) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise not_ours(path, "is not a regular file")
    if owned and found.st_uid not in _trusted(path.parent, like):
        raise not_ours(path, f"belongs to user {found.st_uid}, not to {os.geteuid()}", Foreign)
    if owned and found.st_mode & _OTHERS_WRITE and not _is_modeless(like) and _others_reach(path):
        raise not_ours(path, f"{_WRITABLE} (mode {stat.S_IMODE(found.st_mode):04o})", Foreign)
    if found.st_nlink > links:
        raise not_ours(path, f"has {found.st_nlink} names: a hard link to it exists elsewhere")


def _others_reach(path: Path) -> bool:
    return all(os.stat(folder).st_mode & _OTHERS_ENTER for folder in path.absolute().parents)


def not_ours(path: Path, fault: str, kind: type[NoPermission] = NoPermission) -> NoPermission:
    """The error that names ``path``, its ``fault``, and what to do."""
    what = "Another user may have put it there: check it, and remove it or choose another name."
    if fault.startswith(_WRITABLE):
        what = f"If no other user has written to it, `chmod -R go-w {path}`; else remove it, or choose another name."
    return kind(f"{path} {fault}", what)
