"""Every write streamconv makes to disk goes through here: one seam for durability, portability and fault injection.

Promises
--------
* ``pwrite_all`` returns only when every byte was accepted by the operating system (short writes and EINTR are handled).
* After ``sync_data`` returned, those bytes survive power loss, as far as the device tells the truth.
* ``write_atomically``, ``publish`` and ``publish_new`` leave either the old file or the whole new one under the name, never a part.

Not promised
------------
* That the disk does not fill after ``allocate``: some filesystems reserve nothing, or nothing for what is written again.
* That ``lock_exclusively`` keeps others out: locks are advisory, and no-ops on some network filesystems.
* Any order between two writes with no ``sync_data`` between them.

A failed write or sync is fatal for the run and is never retried: after a failed fsync the kernel may have marked the pages
clean, so a second call would report success over lost data (PostgreSQL's "fsyncgate"; Rebello et al., ATC 2020).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CannotCreate, NoPermission, StreamconvError, WriteFailed, raise_exhausted
from ..ownership import Foreign, folder_fault, not_ours, open_regular, status_of_regular
from . import trials
from .failures import NameInTheWay as NameInTheWay
from .failures import guard as guard
from .fallocate import fallocate
from .renames import EXCHANGE, NO_REPLACE, rename_with

PRIVATE = 0o644  # of files that no other user ever needs to write, whatever the umask
_T = TypeVar("_T")
_ZEROS_LIMIT = 1 << 30
_NAMING = "cannot rename the finished file"
_DARWIN = sys.platform == "darwin"


def make_dir(path: Path, mode: int = 0o700) -> None:
    """Create the folder ``path`` if it is not there; its parent must exist.

    Raises
    ------
    NoPermission : something else has the name, such as a link to a folder
    """
    with guard(path, "cannot create the folder"):
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not is_folder(path) and os.path.lexists(path):
                raise not_ours(path, folder_fault(path)) from None
        else:
            sync_dir(path.parent)


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def own_dir(path: Path, mode: int = 0o700) -> None:
    """Create the folder ``path``, for this user only, or make sure that the one that is there is ours.

    Raises
    ------
    NoPermission : it is a link, belongs to another user, or others can write to it
    """
    make_dir(path, mode)
    require_own_dir(path)


def require_own_dir(path: Path) -> None:
    """NoPermission unless the folder ``path`` is ours, or is not there; see ``own_dir``."""
    with guard(path, "cannot access the folder"), contextlib.suppress(FileNotFoundError):
        fault = folder_fault(path)
        if fault and (like := trials.made_in(path.parent)) is not None:
            fault = folder_fault(path, like)
        if fault:
            raise not_ours(path, fault)


def make_dirs(path: Path) -> None:
    """Create the folder ``path`` and those above it that are missing; readable by others as the umask has it."""
    for folder in reversed([path, *path.parents]):
        if not folder.exists():
            make_dir(folder, 0o777)


def open_own(path: Path, flags: int, mode: int = PRIVATE, links: int = 1) -> int:
    """``ownership.open_regular``, also where filesystems have no owners and modes. Raises OSError, NoPermission."""
    return _also_without_modes(path, lambda like: open_regular(path, flags, mode, links=links, like=like))


def status_own(path: Path) -> os.stat_result:
    """``ownership.status_of_regular``, also where filesystems have no owners and modes. Raises OSError, NoPermission."""
    return _also_without_modes(path, lambda like: status_of_regular(path, like=like))


def _also_without_modes(path: Path, look: Callable[[os.stat_result | None], _T]) -> _T:
    try:
        return look(None)
    except Foreign:
        like = trials.made_in(path.parent)
        if like is None:
            raise
        return look(like)


def open_for_writing(path: Path, *, create: bool, mode: int = 0o666, links: int = 1) -> int:
    """A file descriptor for reading and writing; with ``create`` the file must not exist yet.

    ``mode`` is that of a new file, less what the umask takes; ``links`` is how many names it may have.

    Errors: NoPermission where what is there is not a regular file of ours with one name; see ``ownership``.
    """
    flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
    with guard(path, "cannot create" if create else "cannot open"):
        return open_own(path, flags, mode, links)


def open_or_create(path: Path) -> int:
    """A file descriptor for reading and writing, of the file that is there (see ``open_for_writing``) or of a new empty one."""
    with guard(path, "cannot open"):
        return open_own(path, os.O_RDWR | os.O_CREAT)


def allocate(fd: int, size: int, path: Path) -> None:
    """Make ``fd`` ``size`` bytes long, new bytes reading as zero, with disk space reserved where the system can.

    Raises
    ------
    WriteFailed : the disk is too small; known here, before any work is done
    """
    with guard(path, "cannot reserve space", size):
        have = os.fstat(fd).st_size
        if have > size:
            os.ftruncate(fd, size)
        try:
            if size:
                fallocate(fd, 0, 0, size)
            return
        except OSError as e:
            # The system or the filesystem cannot preallocate (macOS, NFS, some FUSE): fall through to the portable ways.
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        if size < _ZEROS_LIMIT:
            at = have
            while at < size:
                at += os.pwrite(fd, bytes(min(size - at, 1 << 20)), at)
        else:
            os.ftruncate(fd, size)


def pwrite_all(fd: int, data: memoryview | bytes, offset: int, path: Path) -> None:
    """Write all of ``data`` at ``offset``."""
    view = memoryview(data).cast("B")
    with guard(path, f"write of {len(view):,} bytes at offset {offset:,} failed", is_open=True):
        while len(view):
            n = os.pwrite(fd, view, offset)
            if n == 0:
                raise OSError(errno.EIO, "write accepted no bytes")
            view, offset = view[n:], offset + n


def pread_exactly(fd: int, size: int, offset: int, path: Path) -> bytes:
    """``size`` bytes from ``offset``; fewer only at the end of the file."""
    parts = []
    with guard(path, f"read of {size:,} bytes at offset {offset:,} failed"):
        while size:
            part = os.pread(fd, min(size, 1 << 24), offset)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            offset += len(part)
    return b"".join(parts)


def sync_data(fd: int, path: Path, mapping: Any = None) -> None:
    """The data barrier: returns when what was written to ``fd``, and through a ``mapping`` of it, is durable."""
    with guard(path, "the device did not confirm the write (fdatasync)", is_open=True):
        if mapping is not None:
            mapping.flush()
        if _DARWIN:  # fdatasync is no barrier there
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]
        else:
            os.fdatasync(fd)


def sync_dir(path: Path) -> None:
    """Make names created in or renamed into folder ``path`` durable, where the filesystem can (CIFS and some FUSE cannot)."""
    with guard(path, "cannot sync the folder"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            os.close(fd)


def is_at(fd: int, path: Path) -> bool:
    """Whether ``path`` still leads to the file that is open as ``fd``, and not to another or to none.

    The name is opened again: what NFS knows of it without that may be a minute old.
    """
    with guard(path, "cannot look up the file"):
        try:
            other = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # ours could be opened
            return False
        try:
            return os.path.samestat(os.fstat(fd), os.fstat(other))
        finally:
            os.close(other)


def drop_cache(fd: int, offset: int = 0, length: int = 0) -> None:
    """Let the system forget cached pages of ``fd`` that are already on disk; a hint."""
    if hasattr(os, "posix_fadvise"):
        # Cosmetic: some filesystems refuse it, and nothing depends on it.
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def publish(part: Path, final: Path) -> None:
    """Give the finished ``part`` its ``final`` name, durably; whatever file has that name loses it."""
    with guard(final, _NAMING, is_rename=True):
        os.rename(part, final)
    sync_dir(final.parent)


def publish_new(part: Path, final: Path) -> None:
    """As ``publish``, for a file or a folder, but ``final`` must not be there yet, as far as the filesystem can tell.

    Errors: NameInTheWay where it is, and ``part`` keeps its name.
    """
    with guard(final, _NAMING, is_rename=True):
        if not rename_with(NO_REPLACE, part, final) and not _linked(part, final):
            if os.path.lexists(final):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            os.rename(part, final)
    sync_dir(final.parent)


def _linked(part: Path, final: Path) -> bool:
    """Whether ``part`` could be renamed to ``final``, which must not be there, by a hard link."""
    if is_folder(part):
        return False
    try:
        os.link(part, final)
    except OSError as e:
        # FAT and some network filesystems have none.
        if e.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            return False
        raise
    os.unlink(part)
    return True


def publish_over(part: Path, final: Path, expected: os.stat_result, aside: Path) -> None:
    """Give ``part``, a file or a folder, the name ``final``; what had it must be what ``expected`` says.

    Where the system can exchange names, that gets the name ``part``, and ``final`` is there at every moment; else it gets
    ``aside`` first, a name in the folder of ``part`` that is not there. ``part`` takes over the mode of what it replaces.

    Raises
    ------
    CannotCreate : something else has the name; it keeps it, and ``part`` its own
    """
    with guard(final, _NAMING, is_rename=True):
        if not stat.S_ISLNK(expected.st_mode):  # links have none of their own
            with contextlib.suppress(OSError):  # where there are no modes
                os.chmod(part, stat.S_IMODE(expected.st_mode))
        exchanged = rename_with(EXCHANGE, part, final)
        if not exchanged:
            os.rename(final, aside)
        found = os.lstat(part if exchanged else aside)
        same = os.path.samestat(found, expected) and (
            stat.S_ISDIR(found.st_mode)
            or (found.st_size, found.st_mtime_ns) == (expected.st_size, expected.st_mtime_ns)
        )
        if not same:
            rename_with(EXCHANGE, part, final) if exchanged else publish_new(aside, final)
            raise CannotCreate(
                f"{final} was just replaced by something else, which is left as it is",
                "Check it; then choose another name, or run the same command again.",
            )
    if not exchanged:
        try:
            publish_new(part, final)
        except StreamconvError:
            with contextlib.suppress(StreamconvError):
                publish_new(aside, final)
            raise
    sync_dir(part.parent)
    sync_dir(final.parent)


def take_back(part: Path, final: Path, aside: Path) -> None:
    """Undo ``publish_over`` or ``publish_new``, as far as names have not been taken since."""
    if os.path.lexists(part):
        with guard(final, _NAMING, is_rename=True):
            rename_with(EXCHANGE, part, final)
    else:
        publish_new(final, part)
        if os.path.lexists(aside):
            publish_new(aside, final)


def link(target: Path, path: Path) -> None:
    """Let the symbolic link ``path`` lead to ``target``, replacing a link that leads elsewhere.

    The link is relative when both lie below one folder, so that a cache may be moved as a whole.
    """
    near = os.path.relpath(target, path.parent)
    value = near if near.count("..") <= 4 else str(target)
    with guard(path, "cannot create the link"):
        if path.is_symlink() and os.readlink(path) == value:
            return
        # Of a name's own, lest that of another file is taken; the same one each time, lest killed runs leave many.
        temporary = path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.tmp")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(value, temporary)
    publish(temporary, path)


def punch(fd: int, offset: int, length: int) -> bool:
    """Give the disk space of a range of ``fd`` back; it reads as zeros then. False where the system cannot.

    Linux only (ext4, XFS, Btrfs, tmpfs and others).
    """
    keep_size, punch_hole = 1, 2
    try:
        fallocate(fd, keep_size | punch_hole, offset, length)
    except OSError:
        return False
    return True


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace the small text file ``path``: temporary file in the same folder, sync, rename, sync of the folder.

    Several processes may do so at once (caches are shared): each has a temporary file of its own.
    """
    name = os.fsdecode(os.fsencode(path.name)[:242])  # of 255, with what follows
    temporary = path.with_name(f"{name}.{os.urandom(4).hex()}.tmp")
    fd = open_for_writing(temporary, create=True, mode=mode)
    try:
        try:
            pwrite_all(fd, text.encode(), 0, temporary)
            sync_data(fd, temporary)
        finally:
            os.close(fd)
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def remove_if_empty(path: Path) -> None:
    """Remove the folder ``path`` if it is there and empty."""
    with guard(path, "cannot remove the folder"):
        try:
            os.rmdir(path)
        except OSError as e:
            # NFS keeps removed files that are still open in their folder, and says so in either way.
            if e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT):
                return
            raise
    sync_dir(path.parent)


def remove_file(path: Path) -> None:
    """Remove the file ``path`` if it is there."""
    with guard(path, "cannot remove"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def listed(folder: Path, besides: Path) -> list[Path]:
    """What is in ``folder`` but ``besides``; nothing when the folder is gone."""
    with guard(folder, "cannot list the folder"), contextlib.suppress(FileNotFoundError):
        return [p for p in folder.iterdir() if p != besides]
    return []


def read_own(path: Path, limit: int = 256 << 20) -> bytes | None:
    """The bytes of the small file ``path``; None when it is not there, is larger, cannot be read, or is not ours alone."""
    try:
        fd = open_own(path, os.O_RDONLY)
    except (OSError, NoPermission) as e:
        raise_exhausted(e)
        return None
    try:
        found = pread_exactly(fd, limit + 1, 0, path)
        return found if len(found) <= limit else None
    except WriteFailed:
        return None
    finally:
        os.close(fd)


def rename_fault(inside: Path, final: Path) -> str:
    """Why what is in the job folder ``inside`` cannot be renamed to ``final``, "" as far as can be told without doing it.

    Raises
    ------
    WriteFailed, NoPermission, CannotCreate : trying failed in another way
    """
    with guard(final, "cannot test whether it can be replaced"):
        return trials.rename_fault(inside, final)


def allocated_bytes(path: Path) -> int:
    """Disk space that the file ``path`` takes; 0 when it is not there."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:  # it may also go just now
        return 0


def free_bytes(folder: Path) -> int:
    """Bytes a user may still write on the filesystem of ``folder``."""
    with guard(folder, "cannot query the free space"):
        return shutil.disk_usage(folder).free


def lock_exclusively(fd: int) -> bool:
    """Take the advisory lock of ``fd``; False when another process holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if e.errno in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
            return True  # no locks on this filesystem; the run nonce in the index keeps two writers apart
        raise
    return True
