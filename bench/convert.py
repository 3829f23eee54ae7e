"""The main job side by side: a 70B-shaped checkpoint (2 layers, 3.8B weights, 7.6 GB) to Q4_K_M.

    convert.py --peers ~/.cache/streamconv/peers --work /tmp/bench      one JSON line per run on stdout

Peer: llama.cpp's convert_hf_to_gguf.py to BF16, then llama_model_quantize with as many threads as cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import checkpoint
from measure import drop_caches, place, run

QUANTIZE = """
import ctypes, llama_cpp, sys
p = llama_cpp.llama_model_quantize_default_params(); p.nthread = int(sys.argv[3]); p.ftype = 15
assert llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)) == 0
"""


def emit(name: str, **values: object) -> None:
    print(json.dumps({"bench": name, **place(), **values}), flush=True)


def ours(source: Path, work: Path, ram: str, type_: str = "Q4_K_M", threads: int | None = None) -> dict[str, float]:
    out = work / "ours.gguf"
    out.unlink(missing_ok=True)
    drop_caches()
    command = [
        sys.executable,
        "-m",
        "streamconv",
        "convert",
        str(source),
        str(out),
        "--type",
        type_,
        "--ram",
        ram,
        "--quiet",
    ]
    result = run(command + (["--threads", str(threads)] if threads else []))
    return {**result.as_dict(), "output_bytes": out.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--skip-peers", action="store_true")
    a = parser.parse_args()
    source = a.work / "checkpoint"
    checkpoint.write(source)
    cores = len(os.sched_getaffinity(0))
    ours(source, a.work, "2GiB")  # compiles what is not compiled yet
    for ram in ("2GiB", "256MiB") * 3:
        emit("convert", tool="streamconv", ram=ram, extra_disk_bytes=0, **ours(source, a.work, ram))
    drop_caches()
    copied = a.work / "copy"
    result = run(["cp", "-r", str(source), str(copied)])
    emit("copy", tool="cp of the same bytes", **result.as_dict())
    shutil.rmtree(copied)
    if a.skip_peers:
        return
    python, middle, final = a.peers / "bin" / "python", a.work / "peer-bf16.gguf", a.work / "peer.gguf"
    converter = a.peers / "llama.cpp" / "convert_hf_to_gguf.py"
    drop_caches()
    first = run(
        [str(python), str(converter), str(source), "--outtype", "bf16", "--outfile", str(middle)],
        {"NO_LOCAL_GGUF": "", "PYTHONPATH": str(a.peers / "llama.cpp" / "gguf-py")},
    )
    emit(
        "convert",
        tool="convert_hf_to_gguf.py --outtype bf16",
        extra_disk_bytes=middle.stat().st_size,
        **first.as_dict(),
    )
    drop_caches()
    second = run([str(python), "-c", QUANTIZE, str(middle), str(final), str(cores)])
    emit("convert", tool=f"llama_model_quantize Q4_K_M, {cores} threads", extra_disk_bytes=0, **second.as_dict())
    for path in (middle, final):
        path.unlink()


if __name__ == "__main__":
    main()
