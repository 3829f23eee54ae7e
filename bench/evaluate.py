"""imatrix and perplexity against llama.cpp's tools, on the same model, text and threads, in turns.

evaluate.py MODEL.gguf TEXT --tools FOLDER [--chunks 8] [--threads 2] [--rounds 3]      one JSON line a command
FOLDER has llama-imatrix and llama-perplexity, built for this processor. Seconds are those of whole commands, of the fastest round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import place

N_CTX = 512


def timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds, seconds of processors and what was printed."""
    before, began = os.times(), time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took, after = time.monotonic() - began, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return took, busy, done.stdout.decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        theirs = [
            "-m",
            str(a.model),
            "-f",
            str(a.text),
            "-c",
            str(N_CTX),
            "--chunks",
            str(a.chunks),
            "-t",
            str(a.threads),
        ]
        ours = ["--text", str(a.text), "-c", str(N_CTX), "--chunks", str(a.chunks), "--threads", str(a.threads)]
        program = [sys.executable, "-m", "streamconv"]
        matrices = [str(Path(scratch) / name) for name in ("theirs.gguf", "ours.gguf")]
        commands = {
            "imatrix": (
                [str(a.tools / "llama-imatrix"), *theirs, "-o", matrices[0]],
                [*program, "imatrix", str(a.model), matrices[1], *ours, "--force"],
            ),
            "perplexity": (
                [str(a.tools / "llama-perplexity"), *theirs, "-b", str(N_CTX)],
                [*program, "perplexity", str(a.model), *ours],
            ),
        }
        for name, pair in commands.items():
            rounds = [[timed(command) for command in pair] for _ in range(a.rounds)]
            (their_s, their_cpu, their_text), (our_s, our_cpu, our_text) = (min(r[k] for r in rounds) for k in (0, 1))
            found = {
                "command": name, **place(), "model": a.model.name, "chunks": a.chunks, "threads": a.threads,
                "theirs_s": round(their_s, 2), "ours_s": round(our_s, 2), "ours_to_theirs": round(our_s / their_s, 3),
                "theirs_cpu_s": round(their_cpu, 2), "ours_cpu_s": round(our_cpu, 2),
            }  # fmt: skip
            if name == "perplexity":
                found["theirs"], found["ours"] = (
                    re.findall(r"PPL = ([\d.]+)", text) for text in (their_text, our_text)
                )
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
