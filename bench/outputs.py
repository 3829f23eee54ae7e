"""One read, many outputs, and a large GGUF requantized: the 70B-shaped checkpoint of ``convert.py``.

    outputs.py [--work /tmp/streamconv-bench] [--rounds 2]      one JSON line per measurement

Three types alone, then together in one job; then a BF16 file of the same model to Q4_K_M in ``--ram 256MiB``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import checkpoint
from measure import Run, drop_caches, place, run

TYPES = ("Q4_K_M", "Q5_K_M", "Q8_0")


def convert(source: Path, out: Path, types: str, ram: str) -> Run:
    """From a cold page cache to ``out``, which is deleted again."""
    drop_caches()
    result = run(
        [sys.executable, "-m", "streamconv", "convert", str(source), str(out), "--type", types, "--ram", ram, "--quiet"]
    )
    for path in out.parent.glob(out.name.replace("{type}", "*")):
        path.unlink()
    return result


def best(rounds: int, source: Path, out: Path, types: str, ram: str) -> Run:
    return min((convert(source, out, types, ram) for _ in range(rounds)), key=lambda r: r.wall_s)


def emit(what: str, result: Run, **more: object) -> None:
    print(json.dumps({"bench": "outputs", **place(), "what": what, **result.as_dict(), **more}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--rounds", type=int, default=2)
    a = parser.parse_args()
    source, out = a.work / "checkpoint", a.work / "out-{type}.gguf"
    checkpoint.write(source)
    for name in TYPES:
        convert(checkpoint.TOKENIZER, out, name, "1GiB")  # compiles what is not compiled yet
    alone = {name: best(a.rounds, source, out, name, "1GiB") for name in TYPES}
    for name, result in alone.items():
        emit(name, result)
    together = best(a.rounds, source, out, ",".join(TYPES), "1GiB")
    slowest = max(r.wall_s for r in alone.values())
    emit(f"{', '.join(TYPES)} in one job", together, of_slowest_alone=round(together.wall_s / slowest, 2))

    middle = a.work / "bf16.gguf"
    middle.unlink(missing_ok=True)
    run([sys.executable, "-m", "streamconv", "convert", str(source), str(middle), "--type", "BF16", "--quiet"])
    try:
        emit("BF16 GGUF to Q4_K_M, --ram 256MiB", best(a.rounds, middle, a.work / "again.gguf", "Q4_K_M", "256MiB"))
    finally:
        middle.unlink()


if __name__ == "__main__":
    main()
