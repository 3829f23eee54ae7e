"""A disk that gives no more than so many bytes a second, by a group of cgroup v1 (root, and a kernel that has blkio).

Reads are throttled as the processes in the group ask for them, read-ahead too, if they are not in the page cache. Writes
that go through the page cache are not: the kernel writes them out later, for no group.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLKIO = Path("/sys/fs/cgroup/blkio")
_LIMIT = "blkio.throttle.read_bps_device"
#: puts itself into the group, then becomes the command
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def slow_disk(folder: Path, bytes_per_s: int) -> Iterator[list[str]]:
    """What commands begin with that are to read the disk of ``folder`` slowly; the group is removed in the end.

    Errors: SystemExit where there is no such group, or the disk takes no limit.
    """
    group = _BLKIO / f"streamconv-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as e:
        raise SystemExit(f"--slow-disk needs {_BLKIO} (cgroup v1) and root: {e}") from None
    try:
        try:
            (group / _LIMIT).write_text(f"{_device(folder)} {bytes_per_s}")
        except OSError as e:
            raise SystemExit(f"--slow-disk: the disk of {folder} takes no limit: {e}") from None
        yield ["sh", "-c", _ENTER, str(group)]
    finally:
        _remove(group)


def _device(folder: Path) -> str:
    """``MAJOR:MINOR`` of the whole disk that ``folder`` lies on; limits are not for partitions."""
    number = os.stat(folder).st_dev
    own = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    disk = own.parent if (own / "partition").exists() else own
    return (disk / "dev").read_text().strip()


def _remove(group: Path) -> None:
    """Its processes have ended, and leave it a moment later."""
    for _ in range(50):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)
    group.rmdir()
