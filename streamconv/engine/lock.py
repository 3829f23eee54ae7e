"""One process per output: an advisory lock whose holder says who it is."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

from ..errors import CannotCreate, Locked, StreamconvError
from . import files

#: how long a lock file is
LOCK_BYTES = 512


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class JobLock:
    """The exclusive lock on a job folder; released by ``close`` or by the death of the process.

    The lock is advisory and may be a no-op on some network filesystems, so nothing rests on it alone: the index carries a
    run nonce that is checked before every commit. A lock is never stolen.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock file ``path``.

        Raises
        ------
        Locked : another process holds it (its pid, host and start time are in the message), or has just finished
        """
        self._path = path
        try:
            self._fd = files.open_or_create(path)
        except CannotCreate:
            if path.parent.exists():
                raise
            raise _just_finished(path) from None
        if not files.lock_exclusively(self._fd):
            holder = ""
            for _ in range(20):  # a process that has just got the lock is about to write who it is
                holder = files.pread_exactly(self._fd, 4096, 0, path).rstrip(b"\0").decode(errors="replace")
                if holder:
                    break
                time.sleep(0.05)
            os.close(self._fd)
            raise Locked(
                f"another process is working on this output: {_describe(holder)}", "Wait for it, or stop it first."
            )
        if not files.is_at(self._fd, path):  # the holder finished and removed the job folder while we opened the file
            os.close(self._fd)
            raise _just_finished(path)
        me = {"pid": os.getpid(), "host": platform.node(), "boot": _boot_id(), "start": int(time.time())}
        try:
            files.pwrite_all(self._fd, json.dumps(me).encode().ljust(LOCK_BYTES, b"\0"), 0, path)
            # A folder without a lock is not known as that of a job, nor is one with a lock that says something else.
            files.sync_data(self._fd, path)
            files.sync_dir(path.parent)
        except StreamconvError:
            gone = not self.is_held()
            os.close(self._fd)
            if gone:  # where locks do nothing, another process has just removed the folder
                raise _just_finished(path) from None
            raise

    def is_held(self) -> bool:
        """Whether the job folder is still the one that was locked; another process may have removed it and started over."""
        return files.is_at(self._fd, self._path)

    def require(self) -> None:
        """Locked unless ``is_held``."""
        if not self.is_held():
            raise Locked(f"another process has taken over {self._path.parent}", "Wait for it to finish.")

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)


def _just_finished(path: Path) -> Locked:
    return Locked(f"another process has just finished with {path.parent}", "Run the same command again.")


def _describe(text: str) -> str:
    try:
        holder = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["start"]))
        return f"pid {holder['pid']} on {holder['host']}, since {since}"
    except (ValueError, KeyError, TypeError):
        return "its pid is not known"
