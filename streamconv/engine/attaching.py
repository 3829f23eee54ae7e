"""Part files of a job that another process has open, on this machine or on another that shares the file system.

That process, the coordinator, alone writes the index, the headers and the names. All others only fill ranges of chunks, whose bytes
follow from the plan, so it does no harm when two fill the same one, or when one does so late. What they must not do is to write
bytes of others; and on NFS a write to a part of a page is one to all of it, with whatever the client took for the rest. So:

* ``O_WRONLY``: nothing is read before it is written, so no client has old neighbours of a range in its cache.
* ``O_DSYNC``: such a write is sent as it is, never extended to whole pages (``nfs_can_extend_write`` of Linux), and durable when
  the call returns. A sync by another machine, such as the coordinator's, says nothing about these bytes.
* The ``Token`` says for which run of which job: who finds another in the index stops. It is read from a file just opened, as
  what NFS knows of an open one may be a minute old.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from ..errors import NoPermission, StreamconvError
from . import files
from .index_file import CLEAN, newest_header
from .plan import Plan

#: between two looks at the token while a chunk is made
_LOOK_SECONDS = 1.0


class Token(NamedTuple):
    """A run of a job, see ``index_file.Header``."""

    salt: int
    nonce: int
    fingerprint: bytes

    def holds(self, job_dir: Path) -> bool:
        """Whether this run still goes on, as far as the index in ``job_dir`` tells."""
        path = job_dir / "index.wal"
        try:
            fd = files.open_own(path, os.O_RDONLY, links=2)
        except (OSError, NoPermission):
            return False
        try:
            header = newest_header(fd, path)
        except StreamconvError:
            return False
        finally:
            os.close(fd)
        return (
            header is not None
            and (header.salt, header.nonce, header.fingerprint) == tuple(self)
            and header.state != CLEAN  # it was stopped
        )


class Stale(Exception):
    """The run that a file was to be filled for is over."""


class Attached:
    """The part files of ``plan``, open to be filled; safe to use from several threads."""

    def __init__(self, plan: Plan, token: Token) -> None:
        self._plan, self._token = plan, token
        self._fds: dict[int, int] = {}
        self._lock = threading.Lock()
        self._looked_at = 0.0

    def put(self, file: int, data: memoryview, offset: int) -> None:
        """Write to output file number ``file``; durable when it returns.

        Raises
        ------
        Stale : nothing is written
        WriteFailed, CannotCreate, NoPermission
        """
        path = self._plan.part_path(file)
        with self._lock:
            if file not in self._fds:
                self._fds[file] = self._opened(path)
            fd = self._fds[file]
        files.pwrite_all(fd, data, offset, path)

    def _opened(self, path: Path) -> int:
        """The part file ``path`` of this job: one of the same name may be a later job's.

        The index of a job is removed before the parts of the next one are created, so it tells, looked at afterwards.
        """
        try:
            fd = open_to_fill(path)
        except StreamconvError:
            if self._token.holds(self._plan.job_dir):
                raise
            raise Stale from None
        if self._token.holds(self._plan.job_dir):
            return fd
        os.close(fd)
        raise Stale

    def is_current(self) -> bool:
        """Whether the run still goes on, with the files that are open here."""
        with self._lock:
            opened = dict(self._fds)
        return self._token.holds(self._plan.job_dir) and all(
            files.is_at(fd, self._plan.part_path(file)) for file, fd in opened.items()
        )

    def is_wanted(self) -> bool:
        """The same, looked at now and then; for loops."""
        now = time.monotonic()
        if now < self._looked_at + _LOOK_SECONDS:
            return True
        if not self._token.holds(self._plan.job_dir):
            return False
        self._looked_at = now
        return True

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def open_to_fill(path: Path) -> int:
    """A file descriptor for filling ranges of the file ``path``, which is there; see above why in this way.

    Raises
    ------
    WriteFailed, CannotCreate, NoPermission
    """
    with files.guard(path, "cannot open"):
        return files.open_own(path, os.O_WRONLY | os.O_DSYNC)


def fill(path: Path, data: bytes) -> None:
    """Write ``data`` at the beginning of a file that others fill, or have filled."""
    fd = open_to_fill(path)
    try:
        files.pwrite_all(fd, data, 0, path)
    finally:
        os.close(fd)
