"""Stepping back: what the system then says of a process and of the threads it starts."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_GET = {"x86_64": 252, "aarch64": 31}
_IDLE = 3 << 13
#: prints the disk priority of the process and the niceness and disk priority of a thread it starts afterwards
_PROGRAM = """
import ctypes, os, sys, threading
from streamconv.engine.nice import be_nice
get = lambda: ctypes.CDLL(None).syscall(int(sys.argv[1]), 1, 0)
before = get()
be_nice()
found = [before, get()]
thread = threading.Thread(target=lambda: found.extend([os.getpriority(os.PRIO_PROCESS, 0), get()]))
thread.start()
thread.join()
print(*found)
"""


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in _GET, reason="no such system call that we know of"
)
def test_threads_started_later_stand_behind_everybody_for_processor_and_disk() -> None:
    number = str(_GET[platform.machine()])
    done = subprocess.run([sys.executable, "-c", _PROGRAM, number], capture_output=True, text=True, check=True)
    before, own, niceness, thread = map(int, done.stdout.split())
    if before == -1:
        pytest.skip("the system has no disk priorities")
    assert (own, niceness, thread) == (_IDLE, 19, _IDLE)
