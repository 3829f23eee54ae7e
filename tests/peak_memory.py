"""What a conversion allocates beyond what a small one of its kind has left behind: kernels, libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys, threading
import streamconv
from streamconv.progress import anonymous_memory

small, large, out, kind, ram = sys.argv[1:]
streamconv.convert(small, out + "/small", type=kind, threads=2)  # loads and compiles
before = peak = anonymous_memory()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous_memory())

watcher = threading.Thread(target=watch)
watcher.start()
try:
    streamconv.convert(large, out + "/large", type=kind, threads=2, ram=int(ram))
finally:
    done.set()
    watcher.join()
print(peak - before)
"""


def peak_memory(small: Path, large: Path, out: Path, kind: str, ram: int) -> int:
    """Bytes of RssAnon that ``large`` takes after ``small``, both converted to folders below ``out``, in a process of its own."""
    arguments = [str(small), str(large), str(out), kind, str(ram)]
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
