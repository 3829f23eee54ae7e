"""A merge that ends as a quantized GGUF file: one command of ours, and the three commands it stands for.

    one_pass.py --peers ~/.cache/streamconv/peers --mergekit ~/.cache/streamconv/mergekit-peer --work /tmp/bench

One JSON line per run on stdout. The peers are mergekit, convert_hf_to_gguf.py to BF16 and llama_model_quantize to Q4_K_M, each
from a cold page cache, as ours is. ``extra_disk_bytes`` is what lies on disk beside inputs and final file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import merge
from convert import QUANTIZE
from measure import Run, drop_caches, place, run


def emit(**values: object) -> None:
    print(json.dumps({"bench": "one pass", **place(), **values}), flush=True)


def cold(command: list[str], env: dict[str, str] | None = None) -> Run:
    drop_caches()
    return run(command, env)


def folder_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def theirs(a: argparse.Namespace, recipe: Path) -> float:
    """Seconds of the three commands together."""
    merged, middle, final = a.work / "merged", a.work / "merged-bf16.gguf", a.work / "merged-peer.gguf"
    shutil.rmtree(merged, ignore_errors=True)
    python, llama = str(a.peers / "bin" / "python"), a.peers / "llama.cpp"
    cores = str(len(os.sched_getaffinity(0)))
    first = cold([str(a.mergekit / "bin" / "mergekit-yaml"), str(recipe), str(merged), "--quiet"])
    emit(tool="mergekit 0.1.5", extra_disk_bytes=folder_bytes(merged), **first.as_dict())
    second = cold(
        [python, str(llama / "convert_hf_to_gguf.py"), str(merged), "--outtype", "bf16", "--outfile", str(middle)],
        {"NO_LOCAL_GGUF": "", "PYTHONPATH": str(llama / "gguf-py")},
    )
    emit(tool="convert_hf_to_gguf.py --outtype bf16", extra_disk_bytes=middle.stat().st_size, **second.as_dict())
    third = cold([python, "-c", QUANTIZE, str(middle), str(final), cores])
    emit(tool=f"llama_model_quantize Q4_K_M, {cores} threads", extra_disk_bytes=0, **third.as_dict())
    shutil.rmtree(merged)
    for path in (middle, final):
        path.unlink()
    return first.wall_s + second.wall_s + third.wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--mergekit", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--size", choices=merge.SIZES, default="1.5B")
    parser.add_argument("--method", choices=merge.RECIPES, default="slerp")
    parser.add_argument("--ram", default="512MiB")
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    folder, out = a.work / a.size, a.work / "merged.gguf"
    recipe = merge.write_recipe(folder, a.size, a.method)
    command = [sys.executable, "-m", "streamconv", "merge", str(recipe), str(out), "--type", "Q4_K_M", "--ram", a.ram]
    runs = []
    for _ in range(a.runs + 1):  # the first compiles what is not compiled yet
        out.unlink(missing_ok=True)
        runs.append(cold([*command, "--quiet"]))
    mine = min(runs[1:], key=lambda r: r.wall_s)
    emit(
        tool="streamconv, one command",
        method=a.method,
        size=a.size,
        ram=a.ram,
        extra_disk_bytes=0,
        **mine.as_dict(),
    )
    seconds = theirs(a, recipe)
    emit(
        tool="the three together",
        method=a.method,
        size=a.size,
        wall_s=round(seconds, 2),
        ratio=round(seconds / mine.wall_s, 2),
    )
    out.unlink()


if __name__ == "__main__":
    main()
