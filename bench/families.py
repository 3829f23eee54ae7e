"""One layer of each much used family to Q4_K_M: memory, bytes read, and speed per byte beside that of Llama, in turns.

    families.py [--work /tmp/streamconv-bench] [--only NAME,…] [--mib 400] [--ram-mib 256] [--rounds 3]

Prints a table. ``read`` is what the process took from disk for the weights, in their bytes: near 1 where nothing is read twice.
It is less where the page cache cannot be emptied. ``of Llama`` are the seconds a byte beside those of Llama, without those that
the program takes to start: the median of ``--rounds`` pairs of runs. Ends with 1 where memory or bytes are more than they may be.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import sys
from pathlib import Path

import family_layers
from measure import Run, drop_caches, run

LLAMA = "Llama 3 8B"
#: what a run may hold beside what ``--ram`` allows, and what it may read of a byte of the weights
BESIDE_MIB, MOST_READ = 150, 1.1


def options(source: Path) -> list[str]:
    """A vocabulary of bytes does not say how text is split; blocks that a checkpoint has stay as they are."""
    is_packed = "quantization_config" in (source / "config.json").read_text()
    pre = ["--pre", "qwen2"] if (source / "tokenizer.json").exists() else []
    return ["--type", "auto" if is_packed else "Q4_K_M", *pre]


def convert(source: Path, ram_mib: int) -> Run:
    """One run from a cold page cache."""
    drop_caches()
    out = source.with_suffix(".gguf")
    command = [
        sys.executable,
        "-m",
        "streamconv",
        "convert",
        str(source),
        str(out),
        "--ram",
        f"{ram_mib}MiB",
        "--quiet",
    ]
    result = run([*command, *options(source)])
    out.unlink()
    return result


def from_disk() -> int:
    """Bytes that finished children have taken from disk, by the kernel's account."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock * 512


def of_llama(a: argparse.Namespace, source: Path, size: int, llama: Path, llama_size: int, start_s: float) -> str:
    """Seconds a byte beside Llama's, in pairs of runs that follow each other."""
    ratios = []
    for _ in range(a.rounds):
        other, own = convert(llama, a.ram_mib), convert(source, a.ram_mib)
        ratios.append((own.wall_s - start_s) / size / ((other.wall_s - start_s) / llama_size))
    return f"{statistics.median(ratios):.2f}" if ratios else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--only", default="")
    parser.add_argument("--mib", type=int, default=400)
    parser.add_argument("--ram-mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    folder = a.work / "families"
    shutil.rmtree(folder, ignore_errors=True)
    llama, wrong = folder / "llama", False
    llama_size = family_layers.write(llama, LLAMA, a.mib << 20)[0]
    small = shutil.copytree(family_layers.TOKENIZER, folder / "small")
    convert(llama, a.ram_mib)  # compiles what is not compiled yet
    before = from_disk()
    convert(small, a.ram_mib)
    program = from_disk() - before
    start_s = min(convert(small, a.ram_mib).wall_s for _ in range(3))
    allowed = a.ram_mib + BESIDE_MIB
    print("| family | experts | MiB | private memory | s | read | of Llama |\n|---|---|---|---|---|---|---|")
    try:
        for name in filter(None, a.only.split(",")) if a.only else family_layers.FAMILIES:
            source = folder / "model"
            size, experts = family_layers.write(source, name, a.mib << 20)
            before = from_disk()
            result = convert(source, a.ram_mib)
            read = (from_disk() - before - program) / size
            ratio = of_llama(a, source, size, llama, llama_size, start_s)
            shutil.rmtree(source)
            wrong |= result.rss_anon_mib > allowed or read > MOST_READ
            what = f"{experts or ''} | {size >> 20} | {result.rss_anon_mib} MiB | {result.wall_s:.1f} | {read:.2f} | {ratio}"
            print(f"| {name} | {what} |", flush=True)
    finally:
        shutil.rmtree(folder)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
