"""Run a command and measure it from outside: wall time, processor time, memory by kind."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass
class Run:
    """What one run of a command took; memory in MiB."""

    wall_s: float
    cpu_s: float
    rss_anon_mib: int
    rss_mib: int

    def as_dict(self) -> dict[str, float]:
        return {k: round(v, 2) for k, v in asdict(self).items()}


def run(command: list[str], env: dict[str, str] | None = None) -> Run:
    """Run ``command`` to its end; raises CalledProcessError with what it printed when it fails.

    Python keeps its bytecode, as that of an installed package is kept: without, a start takes 2 s longer.
    """
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    began, before = time.perf_counter(), os.times()
    p = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**kept, **(env or {})}, text=True
    )
    peak = {"RssAnon": 0, "VmRSS": 0}
    while p.poll() is None:
        try:
            for line in Path(f"/proc/{p.pid}/status").read_text().splitlines():
                key = line.split(":")[0]
                if key in peak:
                    peak[key] = max(peak[key], int(line.split()[1]) // 1024)
        except (OSError, IndexError):
            pass
        try:
            p.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    after = os.times()
    if p.returncode:
        raise subprocess.CalledProcessError(p.returncode, command, stderr=(p.stderr.read() if p.stderr else "")[-2000:])
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Run(time.perf_counter() - began, cpu, peak["RssAnon"], peak["VmRSS"])


def drop_caches() -> bool:
    """Empty the page cache; False where we may not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def processor() -> str:
    """Name and core count of this machine's processor."""
    name = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    flags = Path("/proc/cpuinfo").read_text()
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE"
    return f"{name}, {vector}, {len(os.sched_getaffinity(0))} cores"


def place() -> dict[str, str]:
    """What a result was measured of, and on what."""
    return {"version": version("streamconv"), "cpu": processor()}
