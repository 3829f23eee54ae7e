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
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import CannotCreate, NoPermission, StreamconvError, WriteFailed, exhausted, raise_exhausted
from ..ownership import folder_fault, open_regular
from .renames import EXCHANGE, NO_REPLACE, is_mount_point, rename_with

_ZEROS_LIMIT = 1 << 30
_DARWIN = sys.platform == "darwin"


class NameInTheWay(CannotCreate):
    """A name is there that should be new, or gone that was there: perhaps another process is at work in the same folder."""


def _fail(e: OSError, path: Path, what: str, needed_bytes: int = 0, is_open: bool = False) -> StreamconvError:
    """The user's error for a failed system call on ``path``."""
    ran_out = None if is_open else exhausted(e)  # of a file that is open: a failed write, whatever the reason
    if ran_out is not None:
        return ran_out
    reason = os.strerror(e.errno) if e.errno else str(e)
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
    return WriteFailed(f"{path}: {what}: {reason}", "Check the device, then run the same command again.")


@contextlib.contextmanager
def _guard(path: Path, what: str, needed_bytes: int = 0, is_open: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise _fail(e, path, what, needed_bytes, is_open) from e


def make_dir(path: Path, mode: int = 0o700) -> None:
    """Create the folder ``path`` if it is not there; its parent must exist."""
    with _guard(path, "cannot create the folder"), contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
        sync_dir(path.parent)


def own_dir(path: Path, mode: int = 0o700) -> None:
    """Create the folder ``path``, for this user only, or make sure that the one that is there is ours.

    Raises
    ------
    NoPermission : it is a link, belongs to somebody else, or others can write to it
    """
    make_dir(path, mode)
    with contextlib.suppress(FileNotFoundError):  # it has just gone, as whoever opens a file in it will see
        require_own_dir(path)


def require_own_dir(path: Path) -> None:
    """NoPermission unless the folder ``path``, which is there, is ours; see ``own_dir``."""
    fault = ""
    with _guard(path, "cannot look at the folder"), contextlib.suppress(FileNotFoundError):
        fault = folder_fault(path)
        if fault:  # on a filesystem without owners and modes, ours would look so too
            probe = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}")
            with contextlib.suppress(PermissionError):
                os.mkdir(probe, 0o700)
                try:
                    fault = folder_fault(path, os.lstat(probe))
                finally:
                    os.rmdir(probe)
    if fault:
        raise NoPermission(
            f"{path} {fault}",
            "Somebody else may have put it there: look at it, and remove it or choose another output.",
        )


def make_dirs(path: Path) -> None:
    """Create the folder ``path`` and those above it that are missing; readable by others as the umask has it."""
    for folder in reversed([path, *path.parents]):
        if not folder.exists():
            make_dir(folder, 0o777)


def open_for_writing(path: Path, *, create: bool, mode: int = 0o666, links: int = 1) -> int:
    """A file descriptor for reading and writing; with ``create`` the file must not exist yet.

    ``mode`` is that of a new file, less what the umask takes; ``links`` is how many names it may have.

    Errors: NoPermission where what is there is not a regular file of ours with one name; see ``ownership``.
    """
    flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
    with _guard(path, "cannot create" if create else "cannot open"):
        return open_regular(path, flags, mode, links=links)


def open_or_create(path: Path) -> int:
    """A file descriptor for reading and writing, of the file that is there (see ``open_for_writing``) or of a new empty one."""
    with _guard(path, "cannot open"):
        return open_regular(path, os.O_RDWR | os.O_CREAT)


def allocate(fd: int, size: int, path: Path) -> None:
    """Make ``fd`` ``size`` bytes long, new bytes reading as zero, with disk space reserved where the system can.

    Raises
    ------
    WriteFailed : the disk is too small; known here, before any work is done
    """
    with _guard(path, "cannot reserve space", size):
        have = os.fstat(fd).st_size
        if have > size:
            os.ftruncate(fd, size)
        if hasattr(os, "posix_fallocate"):
            try:
                if size:
                    os.posix_fallocate(fd, 0, size)
                return
            except OSError as e:
                # The filesystem cannot preallocate (NFS, some FUSE): fall through to the portable ways.
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
    with _guard(path, f"write of {len(view):,} bytes at offset {offset:,} failed", is_open=True):
        while len(view):
            n = os.pwrite(fd, view, offset)
            if n == 0:
                raise OSError(errno.EIO, "write accepted no bytes")
            view, offset = view[n:], offset + n


def pread_exactly(fd: int, size: int, offset: int, path: Path) -> bytes:
    """``size`` bytes from ``offset``; fewer only at the end of the file."""
    parts = []
    with _guard(path, f"read of {size:,} bytes at offset {offset:,} failed"):
        while size:
            part = os.pread(fd, min(size, 1 << 24), offset)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            offset += len(part)
    return b"".join(parts)


def sync_data(fd: int, path: Path) -> None:
    """The data barrier: returns when what was written to ``fd`` is durable."""
    with _guard(path, "the device did not confirm the write (fdatasync)", is_open=True):
        if _DARWIN:  # fdatasync is no barrier there
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]
        else:
            os.fdatasync(fd)


def sync_dir(path: Path) -> None:
    """Make names created in or renamed into folder ``path`` durable, where the filesystem can (CIFS and some FUSE cannot)."""
    with _guard(path, "cannot sync the folder"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            os.close(fd)


def is_at(fd: int, path: Path) -> bool:
    """Whether ``path`` still leads to the file that is open as ``fd``, and not to another or to none."""
    with _guard(path, "cannot ask for the file"):
        try:
            return os.path.samestat(os.fstat(fd), os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return False


def drop_cache(fd: int, offset: int = 0, length: int = 0) -> None:
    """Let the system forget cached pages of ``fd`` that are already on disk; a hint."""
    if hasattr(os, "posix_fadvise"):
        # Cosmetic: some filesystems refuse it, and nothing depends on it.
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def publish(part: Path, final: Path) -> None:
    """Give the finished ``part`` its ``final`` name, durably; whatever file has that name loses it."""
    with _guard(final, "cannot give the finished file its name"):
        os.rename(part, final)
    sync_dir(final.parent)


def publish_new(part: Path, final: Path) -> None:
    """As ``publish``, for a file or a folder, but ``final`` must not be there yet, as far as the filesystem can tell.

    Errors: NameInTheWay where it is, and ``part`` keeps its name.
    """
    with _guard(final, "cannot give the finished file its name"):
        if not rename_with(NO_REPLACE, part, final):
            if part.is_dir():
                if os.path.lexists(final):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.rename(part, final)
            else:
                _link_or_rename(part, final)
    sync_dir(final.parent)


def _link_or_rename(part: Path, final: Path) -> None:
    try:
        os.link(part, final)
    except OSError as e:
        # FAT and some network filesystems have none.
        if e.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(part, final)
    else:
        os.unlink(part)


def publish_over(part: Path, final: Path, expected: os.stat_result, aside: Path) -> None:
    """Give ``part``, a file or a folder, the name ``final``; what had it, which must be what ``expected`` says, gets ``aside``.

    One step where the system can exchange names, so that ``final`` is there at every moment; else two. A folder takes over the
    mode of the old one.

    Parameters
    ----------
    aside : a name in the folder of ``part`` that is not there

    Raises
    ------
    CannotCreate : something else has the name; it keeps it, and ``part`` its own
    """
    with _guard(final, "cannot give the finished file its name"):
        if stat.S_ISDIR(expected.st_mode):
            with contextlib.suppress(OSError):  # where there are no modes
                os.chmod(part, stat.S_IMODE(expected.st_mode))
        exchanged = rename_with(EXCHANGE, part, final)
        if not exchanged:
            os.rename(final, aside)
        old = part if exchanged else aside
        found = os.lstat(old)
        same = os.path.samestat(found, expected) and (
            stat.S_ISDIR(found.st_mode)
            or (found.st_size, found.st_mtime_ns) == (expected.st_size, expected.st_mtime_ns)
        )
        if not same:
            rename_with(EXCHANGE, part, final) if exchanged else publish_new(aside, final)
            raise CannotCreate(
                f"{final} was replaced by something else just now, which stays as it is",
                "Look at it; then choose another name, or run the same command again.",
            )
        if exchanged:
            os.rename(part, aside)
    if not exchanged:
        publish_new(part, final)
    sync_dir(part.parent)
    sync_dir(final.parent)


def link(target: Path, path: Path) -> None:
    """Let the symbolic link ``path`` lead to ``target``, replacing a link that leads elsewhere.

    The link is relative when both lie below one folder, so that a cache may be moved as a whole.
    """
    near = os.path.relpath(target, path.parent)
    value = near if near.count("..") <= 4 else str(target)
    with _guard(path, "cannot create the link"):
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

    Linux only (ext4, XFS, Btrfs, tmpfs and others): Python has no binding for ``fallocate`` with a mode.
    """
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return False
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    keep_size, punch_hole = 1, 2
    return int(fallocate(fd, keep_size | punch_hole, offset, length)) == 0


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
    with _guard(path, "cannot remove the folder"):
        try:
            os.rmdir(path)
        except OSError as e:
            # NFS keeps removed files that somebody has open in their folder, and says so in either way.
            if e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT):
                return
            raise
    sync_dir(path.parent)


def remove_file(path: Path) -> None:
    """Remove the file ``path`` if it is there."""
    with _guard(path, "cannot remove"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def listed(folder: Path, besides: Path) -> list[Path]:
    """What is in ``folder`` but ``besides``; nothing when the folder is gone."""
    with _guard(folder, "cannot list the folder"):
        try:
            return [p for p in folder.iterdir() if p != besides]
        except FileNotFoundError:
            return []


def read_own(path: Path, limit: int = 256 << 20) -> bytes | None:
    """The bytes of the small file ``path``; None when it is not there, is larger, cannot be read, or is not ours alone."""
    try:
        fd = open_regular(path, os.O_RDONLY)
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


def nearest_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.is_dir())


def rename_fault(inside: Path, final: Path) -> str:
    """Why what is in the job folder ``inside`` cannot be renamed to ``final``, "" as far as can be told without doing it.

    Raises
    ------
    WriteFailed, NoPermission, CannotCreate : trying failed in another way
    """
    if os.stat(inside).st_dev != os.stat(final.parent).st_dev:
        return f"{inside} is on another filesystem than {final.parent}"
    for place in (inside, final):
        if is_mount_point(place):
            return f"{place} is a mount point, which cannot be renamed"
    with _guard(final, "cannot try whether it can be replaced"):
        probe = inside / f"probe.{os.urandom(4).hex()}"
        os.mkdir(probe, 0o700)
        try:
            os.mkdir(probe / "full", 0o700)
            for folder in (inside / "out", final):
                # No folder takes the name of one that holds something: any other answer of the system is the reason why
                # this one cannot be renamed at all, as those of a lower layer of overlayfs cannot.
                if folder.is_dir() and not folder.is_symlink():
                    try:
                        os.rename(folder, probe)
                    except OSError as e:
                        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            return f"{folder} cannot be renamed: {os.strerror(e.errno or 0)}"
        finally:
            for folder in (probe / "full", probe):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(folder)
    return ""


def allocated_bytes(path: Path) -> int:
    """Disk space that the file ``path`` takes; 0 when it is not there."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:  # it may also go just now
        return 0


def free_bytes(folder: Path) -> int:
    """Bytes a user may still write on the filesystem of ``folder``."""
    with _guard(folder, "cannot ask for free space"):
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
