"""gemma.cpp's weight files: a checkpoint with the shapes of Gemma 2 2B (2 layers, whole vocabulary, 1.5 GB), against a copy of it.

gemma_cpp.py [--work /tmp/streamconv-bench] [--types sfp,nuq] [--layers 2] [--ram 256MiB]      one JSON line per measurement
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import checkpoint
from measure import drop_caches, place, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--types", default="sfp,bf16,i8")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--ram", default="256MiB")
    a = parser.parse_args()
    source = a.work / f"gemma2-2b-{a.layers}"
    checkpoint.write(source, "gemma2-2b", a.layers)
    drop_caches()
    copied = run(["cp", "-r", str(source), str(a.work / "copy")])
    run(["rm", "-r", str(a.work / "copy")])
    print(json.dumps({"bench": "gemma_cpp", **place(), "what": "cp", **copied.as_dict()}), flush=True)
    command = [sys.executable, "-m", "streamconv", "convert"]
    for kind in a.types.split(","):
        out = a.work / "out.sbs"
        options = ["--type", kind, "--sbs-model", "gemma2-2b-it", "--ram", a.ram, "--quiet"]
        drop_caches()
        result = run([*command, str(source), str(out), *options])
        size = out.stat().st_size
        for path in (out, out.with_name(".out.sbs.streamconv")):
            path.unlink()
        line = {**result.as_dict(), "out_bytes": size, "of_cp": round(result.wall_s / copied.wall_s, 2)}
        print(json.dumps({"bench": "gemma_cpp", **place(), "what": kind, "ram": a.ram, **line}), flush=True)


if __name__ == "__main__":
    main()
