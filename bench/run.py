"""All benchmarks, into bench/results.jsonl, and the README's table from them.

run.py --peers FOLDER [--work FOLDER]      (make bench)
run.py --table                             only rewrite the README from the recorded results
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"


def records() -> list[dict[str, object]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def number(rows: list[dict[str, object]], key: str) -> float:
    return statistics.median(float(str(r[key])) for r in rows)


def table() -> str:
    """The comparison as Markdown, from the recorded results."""
    found = records()
    lines = [f"Measured on {found[0]['cpu']}, cold page cache; medians. `make bench` repeats it.", ""]
    lines += ["| 70B-shaped bf16 checkpoint (2 layers, 7.6 GB) to Q4_K_M | wall | private memory | extra disk |"]
    lines += ["|---|---|---|---|"]
    groups: dict[str, list[dict[str, object]]] = {}
    for r in found:
        if r["bench"] in ("convert", "copy"):
            groups.setdefault(f"{r['tool']}{' --ram ' + str(r['ram']) if 'ram' in r else ''}", []).append(r)
    for name, rows in groups.items():
        disk = number(rows, "extra_disk_bytes") / 1e9 if "extra_disk_bytes" in rows[0] else 0
        lines.append(
            f"| {name} | {number(rows, 'wall_s'):.1f} s | {number(rows, 'rss_anon_mib'):.0f} MiB |"
            f" {f'{disk:.1f} GB' if disk else 'none'} |"
        )
    lines += ["", "| one core, ns per weight | ours | ggml | ratio |", "|---|---|---|---|"]
    for r in found:
        if r["bench"] == "kernel":
            kind = f"{r['type']}{' with imatrix' if r['imatrix'] else ''}"
            lines.append(f"| {kind} | {r['ours_ns']} | {r['ggml_ns']} | {r['ratio']} |")
    return "\n".join(lines) + "\n"


def write_table() -> None:
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(before + BEGIN + table() + END + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    if not a.table:
        if a.peers is None:
            parser.error("--peers is needed to measure")
        lines: list[str] = []
        for script, extra in (
            ("kernels.py", []), ("kernels.py", ["--imatrix"]), ("convert.py", ["--work", str(a.work)]),
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, str(HERE / script), "--peers", str(a.peers), *extra],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            print(done.stdout, end="", flush=True)
            lines += done.stdout.splitlines()
        RESULTS.write_text("\n".join(lines) + "\n")
    write_table()


if __name__ == "__main__":
    main()
