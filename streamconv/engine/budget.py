"""How much memory a job may allocate, and how it is shared among threads.

The promise is about anonymous memory (``RssAnon``): what we allocate stays under ``--ram`` plus the interpreter and the
compiled kernels (about 150 MiB). Mapped input pages and written output pages are the page cache's; they are handed back as
soon as they are used.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import UsageError
from ..units import MIB

#: room that must stay on a disk beyond what is planned: for indexes, logs and whatever else writes there meanwhile
RESERVE_BYTES = 64 * MIB
_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
#: Tile of float32 values that decode, merge and quantize hand on while it is in the second-level cache.
_TILE_FLOATS = 64 << 10
_MAX_BUFFER = 4 * MIB
_MAX_WINDOW = 256 * MIB


def parse_size(text: str) -> int:
    """Bytes of a size such as ``512MiB``, ``2G`` or ``1.5 GiB``.

    Raises
    ------
    UsageError : not a size

    >>> parse_size("512MiB"), parse_size("2G"), parse_size("64k")
    (536870912, 2000000000, 64000)
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]i?)?b?\s*", text.lower())
    if not match or match[1].count(".") > 1 or match[1] == ".":
        raise UsageError(f"{text!r} is not a size", "Write it as 512MiB or 2GiB.")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def memory_limit() -> int:
    """Bytes this process may hope for: the smallest of its control groups' limits and the available memory."""
    limits = [psutil.virtual_memory().available]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", *_own_groups()):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):
            continue  # not this kind of system, or "max"
    return int(min(limits))


def _own_groups() -> list[str]:
    """Limit files of the control groups this process is in (v1 and v2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found.append(f"/sys/fs/cgroup{path}/memory.max")
        elif "memory" in controllers.split(","):
            found.append(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
    return found


def default_ram() -> int:
    """A quarter of what is there, at most 2 GiB."""
    return min(memory_limit() // 4, 2 << 30)


def default_threads() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Budget:
    """Shares of the memory budget.

    Attributes
    ----------
    ram_bytes : the whole budget
    threads : workers
    buffer_bytes : output bytes a worker makes before it writes them
    scratch_floats : float32 values of a worker's tile
    window_bytes : written but not yet committed bytes at which the next commit is due
    """

    ram_bytes: int
    threads: int
    buffer_bytes: int
    scratch_floats: int
    window_bytes: int


def share(ram_bytes: int, threads: int, widest_cols: int, widest_row_bytes: int, held_bytes: int = 0) -> Budget:
    """Divide ``ram_bytes`` for a job whose widest row has ``widest_cols`` weights and ``widest_row_bytes`` encoded bytes.

    Fewer threads are used when the budget cannot feed them all. ``held_bytes`` of it, at most half, are taken by what is kept
    of compressed inputs.

    Raises
    ------
    UsageError : not even one thread fits
    """
    scratch_floats = max(2 * _TILE_FLOATS, 2 * widest_cols)
    floor = widest_row_bytes + 4 * scratch_floats
    free = ram_bytes - held_bytes
    while threads > 1 and threads * floor > free // 2:
        threads -= 1
    if floor > free // 2:
        needed = 2 * floor * ram_bytes // max(1, free)
        given = f"{ram_bytes // MIB} MiB" if ram_bytes >= MIB else f"{ram_bytes} bytes"
        raise UsageError(
            f"--ram {given} is too little: the widest row needs {needed / MIB:.1f} MiB",
            f"Use --ram {-(-needed // MIB)}MiB or more.",
        )
    buffer_bytes = max(widest_row_bytes, min(_MAX_BUFFER, free // (4 * threads)))
    window_bytes = max(2 * MIB, min(_MAX_WINDOW, free // 2))
    return Budget(ram_bytes, threads, buffer_bytes, scratch_floats, window_bytes)
