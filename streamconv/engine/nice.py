"""Stepping back behind everybody else on the machine."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

#: numbers of the system call ``ioprio_set``, which the C library has no function for
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS, _CLASS_IDLE = 1, 3 << 13


def be_nice() -> None:
    """Lowest priority for the processor, and the idle class for disks where there is one (Linux).

    Threads started later inherit both. Whatever the system refuses stays as it is.
    """
    with suppress(OSError, AttributeError):
        os.nice(19)
    number = _IOPRIO_SET.get(platform.machine()) if platform.system() == "Linux" else None
    if number is not None:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE)
