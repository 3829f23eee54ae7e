"""Fetching and converting at once, against each alone: a 70B-shaped checkpoint (7.6 GB) from a hub on this machine.

    hub.py --work /tmp/bench [--source FOLDER | --shape 8b --layers 1] [--gbit 1]

One JSON line per run on stdout, the ratio last.

``--gbit 0`` serves as fast as the loopback device goes, which is faster than any line: then fetching is bound by the processor
and the disk, as converting is, and nothing is left to overlap.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoint
from measure import Run, drop_caches, place, run

SERVER = Path(__file__).resolve().parent.parent / "tests" / "hub" / "server.py"
MODEL, CONNECTIONS = "org/big", 4


def emit(what: str, gbit: float, result: Run) -> float:
    record = {"bench": "hub", **place(), "what": what, "gbit": gbit, **result.as_dict()}
    print(json.dumps(record), flush=True)
    return result.wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--source", type=Path)
    parser.add_argument("--shape", default="70b", choices=checkpoint.SHAPES)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--gbit", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--type", default="Q4_K_M")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    source = a.source or a.work / f"checkpoint-{a.shape}-{a.layers}"
    if a.source is None:
        checkpoint.write(source, a.shape, a.layers)
    rate = [str(a.gbit * 1e9 / 8 / CONNECTIONS)] if a.gbit else []
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(source), MODEL, *rate], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        measure(a, server.stdout.readline().strip())
    finally:
        server.kill()
        server.wait()


def measure(a: argparse.Namespace, url: str) -> None:
    cache, out = a.work / "hub-cache", a.work / "hub.gguf"
    env = {"HF_ENDPOINT": url, "STREAMCONV_CACHE": str(cache), "HF_HOME": str(a.work / "hf"), "HF_TOKEN": ""}
    command = [sys.executable, "-m", "streamconv"]
    convert = [*command, "convert", MODEL, str(out), "--type", a.type, "--quiet"]
    best: dict[str, float] = {}
    for _ in range(a.rounds):
        for what in ("fetch", "convert", "both"):
            if what != "convert":
                shutil.rmtree(cache, ignore_errors=True)
            out.unlink(missing_ok=True)
            drop_caches()
            result = run([*command, "fetch", MODEL, "--quiet"] if what == "fetch" else convert, env)
            seconds = emit(what, a.gbit, result)
            best[what] = min(seconds, best.get(what, seconds))
    ratio = best["both"] / max(best["fetch"], best["convert"])
    print(
        json.dumps({"bench": "hub", "what": "both / the longer alone", "gbit": a.gbit, "ratio": round(ratio, 3)}),
        flush=True,
    )
    shutil.rmtree(cache, ignore_errors=True)
    out.unlink(missing_ok=True)
    assert not os.path.exists(str(out) + ".streamconv")


if __name__ == "__main__":
    main()
