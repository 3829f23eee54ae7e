"""Mixes chosen from measured errors against standard ones of the same size: KL divergence on text that neither saw.

    python bench/mix.py MODEL... --text FILE [--text FILE] [--types Q3_K_M,Q4_K_M,Q5_K_M]

The text is halved: importance matrix and mix are made of the first half, all is judged by ``streamconv compare`` on the other. Each
line of stdout is an object: ``ratio`` is the KL divergence of the mix by that of the standard mix of ``type``, ``predicted`` what
the mix was said to have, ``predicted_by_checked`` that by what ``mix`` measured on the chunks it held out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_PIECE = 4096


def halves(texts: list[bytes]) -> tuple[bytes, bytes]:
    """Both halves of all ``texts``, in each of which pieces of all of them alternate."""
    cut = [text.index(b"\n", len(text) // 2) + 1 for text in texts]
    first, second = [t[:n] for t, n in zip(texts, cut, strict=True)], [t[n:] for t, n in zip(texts, cut, strict=True)]
    return _mixed(first), _mixed(second)


def _mixed(texts: list[bytes]) -> bytes:
    longest = max(map(len, texts))
    return b"\n".join(text[at : at + _PIECE] for at in range(0, longest, _PIECE) for text in texts)


def streamconv(*words: object) -> str:
    """What the program prints; its notes go to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "streamconv", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def measured(model: Path, kind: str, folder: Path, first: Path, second: Path) -> dict[str, Any]:
    """One mix of ``model``, at the bytes of ``kind``."""
    matrix = folder / "imatrix.gguf"
    if not matrix.exists():
        streamconv("imatrix", model, matrix, "--text", first, "--quiet")
    usual, own, types = folder / f"{kind}.gguf", folder / f"{kind}-mix.gguf", folder / f"{kind}.txt"
    streamconv("convert", model, usual, "--type", kind, "--imatrix", matrix, "--quiet")
    target = usual.stat().st_size
    arguments = ("--size", target, "--imatrix", matrix, "--text", first, "--json")
    made = json.loads(streamconv("mix", model, types, *arguments).splitlines()[-1])
    streamconv(
        "convert", model, own, "--type", made["type"], "--tensor-type-file", types, "--imatrix", matrix, "--quiet"
    )
    found = json.loads(streamconv("compare", model, usual, own, "--text", second, "--json", "--chunks", -1))
    standard, mixed = (each["kl_divergence"]["mean"] for each in found)
    return {
        "model": model.name, "type": kind, "bytes": own.stat().st_size, "share": own.stat().st_size / target,
        "standard": standard, "mix": mixed, "ratio": mixed / standard, "predicted": made["mix"]["predicted_kl"],
        "predicted_by_mix": made["mix"]["predicted_kl"] / mixed,
        "predicted_by_checked": made["mix"]["predicted_kl"] / made["mix"]["measured_kl"], "kept": made["standard_kept"],
        "best_standard": made["standard"]["name"],
    }  # fmt: skip


def main() -> None:
    """Measure all, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--types", default="Q3_K_M,Q4_K_M,Q5_K_M")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mix-") as name:
        first, second = Path(name, "first.txt"), Path(name, "second.txt")
        for path, text in zip((first, second), halves([t.read_bytes() for t in a.text]), strict=True):
            path.write_bytes(text)
        for model in a.models:
            folder = Path(name, model.name)
            folder.mkdir()
            for kind in a.types.split(","):
                print(json.dumps(measured(model, kind, folder, first, second)), flush=True)


if __name__ == "__main__":
    main()
