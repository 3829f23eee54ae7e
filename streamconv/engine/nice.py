"""Lower CPU and I/O priority, below all other processes on the machine."""

from __future__ import annotations

from contextlib import suppress

import psutil


def be_nice() -> None:
    """Lowest priority for the processor, and the idle class for disks where there is one (Linux).

    Threads started later inherit both. Whatever the system refuses stays as it is.
    """
    process = psutil.Process()
    with suppress(psutil.Error, OSError):
        process.nice(19)
    if hasattr(process, "ionice"):
        with suppress(psutil.Error, OSError):
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
