"""imatrix, perplexity and compare on the 70B shape (2 layers, 128256 tokens, 7.6 GB): memory, and bytes read from a cold cache.

    passes.py [--work /tmp/streamconv-bench] [--chunks 2] [--ram 1GiB]
    passes.py --tools FOLDER [--limit 768MiB]      as well as llama-imatrix where memory is limited; needs root and cgroup v1

One JSON line a run. ``read`` is what the process took from disk, in bytes of the weights that a pass needs: 1 where each is read
once. With ``--tools``, a folder with llama-imatrix, the model is a BF16 GGUF file and both tools run in a control group with
``--limit`` of memory, page cache included; ours with ``--ram 512MiB``, theirs as it is and with batches of 512 tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import checkpoint
import numpy as np
from measure import drop_caches, place, run

from streamconv.engine.budget import parse_size

PROGRAM = [sys.executable, "-m", "streamconv"]
LAYERS, BYTES = 2, 2
GROUP = Path("/sys/fs/cgroup/memory/streamconv-bench")
#: what a run may hold beside what ``--ram`` allows
BESIDE_MIB = 150


def emit(what: str, **found: object) -> None:
    print(json.dumps({"bench": "passes", **place(), "what": what, **found}), flush=True)


def from_disk() -> int:
    """Bytes that finished children have taken from disk, by the kernel's account."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock * 512


def cold(command: Sequence[str], weights: int, overhead: int = 0) -> dict[str, object]:
    """One run from a cold page cache; ``weights`` is what a pass has to read."""
    drop_caches()
    before = from_disk()
    result = run([*PROGRAM, *command])
    return {**result.as_dict(), "read": round((from_disk() - before - overhead) / weights, 3)}


def passes(a: argparse.Namespace, source: Path, text: Path) -> None:
    """What each command holds and reads."""
    quantized = a.work / "passes-q4_k_m.gguf"
    if not quantized.exists():
        run([*PROGRAM, "convert", str(source), str(quantized), "--type", "Q4_K_M", "--quiet"])
    sizes = {name: BYTES * int(np.prod(shape)) for name, shape in checkpoint.tensors_of("70b", LAYERS)}
    layers = sum(size for name, size in sizes.items() if name.startswith("model.layers."))
    head, share = sizes["lm_head.weight"], quantized.stat().st_size / sum(sizes.values())
    before = from_disk()
    drop_caches()
    run([*PROGRAM, "imatrix", "--help"])
    program = from_disk() - before
    usual = ["--text", str(text), "--chunks", str(a.chunks), "--ram", a.ram]
    out = str(a.work / "passes.gguf")
    wrong = False
    for what, command, weights in (
        ("imatrix", ["imatrix", str(source), out, "--force"], layers + head),
        ("perplexity", ["perplexity", str(source)], layers + head),
        ("compare with Q4_K_M", ["compare", str(source), str(quantized)], (layers + head) * (1 + share)),
    ):
        found = cold([*command, *usual], int(weights), program)
        allowed = parse_size(a.ram) // (1 << 20) + BESIDE_MIB
        wrong |= float(str(found["rss_anon_mib"])) > allowed
        emit(what, chunks=a.chunks, ram=a.ram, allowed_mib=allowed, **found)
    sys.exit(wrong)


def limited(command: Sequence[str], limit: int) -> dict[str, object]:
    """Seconds of a command in a control group with so much memory, from a cold page cache; why it ended where it failed."""
    GROUP.mkdir(exist_ok=True)
    try:
        (GROUP / "memory.limit_in_bytes").write_text(str(limit))
        drop_caches()
        began, before = time.monotonic(), from_disk()
        inside = f'echo $$ > {GROUP / "cgroup.procs"} && exec "$@"'
        done = subprocess.run(
            ["sh", "-c", inside, "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        found: dict[str, object] = {
            "s": round(time.monotonic() - began, 1),
            "read_gb": round((from_disk() - before) / 1e9, 1),
        }
        return (
            found
            if not done.returncode
            else {**found, "failed": done.returncode, "said": done.stdout[-300:].decode(errors="replace")}
        )
    finally:
        GROUP.rmdir()


def against_tools(a: argparse.Namespace, source: Path, text: Path) -> None:
    """The same matrix by both, where memory is limited."""
    model, limit = a.work / "passes-bf16.gguf", parse_size(a.limit)
    if not model.exists():
        run([*PROGRAM, "convert", str(source), str(model), "--type", "BF16", "--quiet"])
    theirs = [str(a.tools / "llama-imatrix"), "-m", str(model), "-f", str(text), "-c", "512", "--chunks", str(a.chunks)]
    theirs += ["-t", "2", "-o", str(a.work / "theirs.gguf")]
    ours = [*PROGRAM, "imatrix", str(model), str(a.work / "passes.gguf"), "--force", "--text", str(text), "-c", "512"]
    ours += ["--chunks", str(a.chunks), "--threads", "2", "--ram", "512MiB"]
    for tool, command in (
        ("streamconv", ours),
        ("llama-imatrix -b 512", [*theirs, "-b", "512"]),
        ("llama-imatrix", theirs),
    ):
        emit(
            f"imatrix in {a.limit}",
            tool=tool,
            chunks=a.chunks,
            model_gb=round(model.stat().st_size / 1e9, 1),
            **limited(command, limit),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--ram", default="1GiB")
    parser.add_argument("--tools", type=Path)
    parser.add_argument("--limit", default="768MiB")
    a = parser.parse_args()
    source, text = a.work / "checkpoint", a.work / "text.txt"
    checkpoint.write(source, "70b", LAYERS)
    letters = np.random.default_rng(0).integers(97, 123, 200_000).astype(np.uint8)
    letters[::6] = 32
    text.write_bytes(letters.tobytes())
    (against_tools if a.tools else passes)(a, source, text)


if __name__ == "__main__":
    main()
