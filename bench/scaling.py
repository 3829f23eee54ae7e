"""What a conversion costs beside its kernels, and what more threads make of it: a checkpoint of 2.5 GB from a cold page cache.

    scaling.py --work /tmp/bench [--types Q4_K_M,IQ3_S] [--shape 8b --layers 1]      one JSON line per run on stdout

``kernels_s`` is what the kernels alone take, by ``streamconv bench`` and the types of all tensors; ``disk_s`` and ``disk_cpu_s``
wall and processor time of ``cat`` for as many bytes in and out; ``start_s`` the processor time of converting next to nothing.
``of_kernels`` is the processor time of the run by that of the kernels; ``of_limit`` its wall time by disk or kernels, whichever
takes longer with so many threads; ``speedup`` and ``efficiency`` compare it with that of one thread. Medians of ``--runs``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import checkpoint
from measure import Run, drop_caches, place, run

TINY = Path(__file__).resolve().parent.parent / "tests/data/checkpoints/mistral-spm/hf"
STREAMCONV = [sys.executable, "-m", "streamconv"]


def told(*words: object) -> dict[str, Any]:
    """What a command says in JSON."""
    done = subprocess.run([*STREAMCONV, *map(str, words), "--json"], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kernels_s(source: Path, out: Path, kind: str) -> float:
    """Processor time of the kernels for all weights of ``source``."""
    weights = Counter[str]()
    for tensor in told("plan", source, out, "--type", kind)["tensors"]:
        weights[tensor["type"]] += math.prod(tensor["shape"])
    del weights["F32"]  # vectors
    speeds = told("bench", "--type", ",".join(weights))["types"]
    return sum(weights[each["type"]] * float(each["plain_ns"]) * 1e-9 for each in speeds)


def median(command: list[str], runs: int, *, cold: bool) -> Run:
    """The run whose wall time is the median."""
    found = []
    for _ in range(runs):
        if cold:
            drop_caches()
        found.append(run(command))
    return sorted(found, key=lambda r: r.wall_s)[runs // 2]


def disk(source: Path, out: Path, runs: int) -> tuple[float, float]:
    """Wall and processor time of reading ``source`` from disk, and of writing as many bytes as ``out`` has to it."""
    copied = out.with_suffix(".copy")
    read = median(["sh", "-c", f"cat {source}/*.safetensors > /dev/null"], runs, cold=True)
    run(["cat", str(out)])
    write = median(["sh", "-c", f"cat {out} > {copied} && sync -d {copied}"], runs, cold=False)
    both = median(["sh", "-c", f"cat {out} > /dev/null"], runs, cold=False)  # what reading what is written again took
    copied.unlink()
    return read.wall_s + write.wall_s - both.wall_s, read.cpu_s + write.cpu_s - both.cpu_s


def main() -> None:
    """Measure every type with 1, 2, 4, … threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--types", default="Q4_K_M,IQ3_S")
    parser.add_argument("--shape", default="8b", choices=checkpoint.SHAPES)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--ram", default="512MiB")
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    source, tiny = a.work / f"checkpoint-{a.shape}-{a.layers}", a.work / "tiny.gguf"
    checkpoint.write(source, a.shape, a.layers)
    cores = len(os.sched_getaffinity(0))
    for kind in a.types.split(","):
        out = a.work / f"scaling-{kind}.gguf"
        command = [*STREAMCONV, "convert", str(source), str(out), "--type", kind, "--ram", a.ram, "--quiet", "--force"]
        convert_tiny = [*STREAMCONV, "convert", str(TINY), str(tiny), "--type", kind, "--quiet", "--force"]
        run(convert_tiny)  # compiles what is not compiled yet
        start = median(convert_tiny, a.runs, cold=False)
        first: Run | None = None
        for threads in (n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores):
            kernels = kernels_s(source, out, kind)
            found = median([*command, "--threads", str(threads)], a.runs, cold=True)
            if first is None:
                first, (wall, cpu) = found, disk(source, out, a.runs)
            speedup = first.wall_s / found.wall_s
            facts = {
                "kernels_s": kernels, "disk_s": wall, "disk_cpu_s": cpu, "start_s": start.cpu_s,
                "of_kernels": found.cpu_s / kernels, "of_limit": found.wall_s / max(wall, kernels / threads),
                "speedup": speedup, "efficiency": speedup / threads,
            }  # fmt: skip
            rounded = {key: round(value, 2) for key, value in facts.items()}
            line = {"bench": "scaling", **place(), "type": kind, "threads": threads, **found.as_dict(), **rounded}
            print(json.dumps(line), flush=True)
        for path in (out, tiny):
            path.unlink()
            shutil.rmtree(path.with_name(f".{path.name}.streamconv"), ignore_errors=True)


if __name__ == "__main__":
    main()
