"""All benchmarks, into bench/results.jsonl, and the tables from them: in the README those of the processor measured last, in
docs/measured.md those of others.

run.py --peers FOLDER [--mergekit FOLDER] [--work FOLDER] [--only kernels,convert,…]      (make bench)
run.py --table                                      only rewrite the pages from the recorded results

With ``--only`` the other results stay as they are recorded, and so do those of other processors.
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
README, OTHERS = HERE.parent / "README.md", HERE.parent / "docs" / "measured.md"
COPIED = "linear,model_stock,dare_ties,ties"
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"


def records() -> list[dict[str, object]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def number(rows: list[dict[str, object]], key: str) -> float:
    return statistics.median(float(str(r[key])) for r in rows)


def by_bench(found: list[dict[str, object]], *kinds: str) -> list[dict[str, object]]:
    return [r for r in found if r["bench"] in kinds]


def conversion_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| 70B-shaped bf16 checkpoint (2 layers, 7.6 GB) to Q4_K_M | wall | private memory | extra disk |"]
    lines += ["|---|---|---|---|"]
    groups: dict[str, list[dict[str, object]]] = {}
    for r in by_bench(found, "convert", "copy"):
        groups.setdefault(f"{r['tool']}{' --ram ' + str(r['ram']) if 'ram' in r else ''}", []).append(r)
    for name, rows in groups.items():
        disk = number(rows, "extra_disk_bytes") / 1e9 if "extra_disk_bytes" in rows[0] else 0
        lines.append(
            f"| {name} | {number(rows, 'wall_s'):.1f} s | {number(rows, 'rss_anon_mib'):.0f} MiB |"
            f" {f'{disk:.1f} GB' if disk else 'none'} |"
        )
    return lines


def scaling_table(found: list[dict[str, object]]) -> list[str]:
    lines = [
        "| 2.5 GB to a type, threads | wall | ratio per thread | disk alone | processor | kernels alone | private memory |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in by_bench(found, "scaling"):
        lines.append(
            f"| {r['type']}, {r['threads']} | {r['wall_s']:.1f} s | {r['efficiency']} | {r['disk_s']:.1f} s |"
            f" {r['cpu_s']:.1f} s | {r['kernels_s']:.1f} s | {r['rss_anon_mib']} MiB |"
        )
    return lines


def outputs_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| the same checkpoint | wall | private memory |", "|---|---|---|"]
    for r in by_bench(found, "outputs"):
        lines.append(f"| {r['what']} | {r['wall_s']:.1f} s | {r['rss_anon_mib']:.0f} MiB |")
    return lines


def merge_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| models of 300M weights in bf16 | streamconv merge | mergekit 0.1.5 | ratio |", "|---|---|---|---|"]
    rows = [r for r in by_bench(found, "merge") if r["size"] == "300M"]
    mine = {r["method"]: r for r in rows if r["tool"] == "streamconv"}
    for r in rows:
        if r["tool"] != "streamconv":
            ours = mine[r["method"]]
            lines.append(
                f"| {r['method']} | {ours['wall_s']:.1f} s, {ours['rss_anon_mib']:.0f} MiB |"
                f" {r['wall_s']:.1f} s, {r['rss_anon_mib']:.0f} MiB | {r['ratio']} |"
            )
    return lines


def merge_copy_table(found: list[dict[str, object]]) -> list[str]:
    rows = [r for r in by_bench(found, "merge and copy") if r["tool"] == "streamconv" and "of_cp" in r]
    if not rows:
        return []
    lines = [
        f"| models of {rows[0]['size']} in bf16, bytes a second by those of `cp` and `sync`, each input counted once"
        " | in memory | from disk |"
    ]
    lines += ["|---|---|---|"]
    for method in dict.fromkeys(r["method"] for r in rows):
        warm, cold = (next(r for r in rows if r["method"] == method and r["cold"] is cold) for cold in (False, True))
        lines.append(f"| {method} of {warm['n_models']} models | {warm['of_cp']} | {cold['of_cp']} |")
    return lines


def one_pass_table(found: list[dict[str, object]]) -> list[str]:
    lines = [
        "| two models of 1.5B weights, merged by slerp, to Q4_K_M | wall | private memory | extra disk |",
        "|---|---|---|---|",
    ]
    for r in by_bench(found, "one pass"):
        memory = f"{r['rss_anon_mib']} MiB" if "rss_anon_mib" in r else ""
        disk = float(str(r["extra_disk_bytes"])) / 1e9 if "extra_disk_bytes" in r else 0
        note = f" ({r['ratio']} times ours)" if "ratio" in r else ""
        lines.append(f"| {r['tool']} | {r['wall_s']:.1f} s{note} | {memory} | {f'{disk:.1f} GB' if disk else 'none'} |")
    return lines


def kernel_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| one core, ns per weight | ours | ggml | ratio | with imatrix: ours | ggml | ratio |"]
    lines += ["|---|---|---|---|---|---|---|"]
    cells: dict[str, dict[bool, str]] = {}
    for r in by_bench(found, "kernel"):
        kind = cells.setdefault(str(r["type"]), {})
        kind[bool(r["imatrix"])] = f"{r['ours_ns']} | {r['ggml_ns']} | {r['ratio']}"
    lines += [f"| {name} | {c.get(False, '– | – | –')} | {c.get(True, '– | – | –')} |" for name, c in cells.items()]
    return lines


def decoder_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| decoding on one core | ns per weight |", "|---|---|"]
    return lines + [
        f"| {r['what']} | {r['ns_per_weight']} |" for r in by_bench(found, "dequant") if "ns_per_weight" in r
    ]


def bandwidth_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| bf16 rows to a type, one core | GB of rows per second | of a copy of them |", "|---|---|---|"]
    return lines + [f"| {r['type']} | {r['gb_per_s']} | {r['of_copy']} |" for r in by_bench(found, "bandwidth")]


PARTS = (
    conversion_table, scaling_table, outputs_table, merge_table, merge_copy_table, one_pass_table, kernel_table, bandwidth_table,
    decoder_table,
)  # fmt: skip


def sections() -> list[str]:
    """For each processor all comparisons as Markdown, from the recorded results, the one measured last first."""
    found, made = records(), []
    for cpu in dict.fromkeys(str(r["cpu"]) for r in reversed(found) if "cpu" in r):
        here = [r for r in found if r.get("cpu") == cpu]
        versions = dict.fromkeys(str(r.get("version", "0.1.0")) for r in here)
        lines = [f"### On {cpu} (version {', '.join(versions)})", ""]
        for part in PARTS:
            rows = part(here)
            lines += [*rows, ""] if len(rows) > 2 else []
        made.append("\n".join(lines))
    return made


def pages() -> tuple[str, str]:
    """What the README says between its marks, and the page of other processors."""
    last, *others = sections()
    readme = (
        "From a cold page cache but for the merges of 300M weights. Shown is the median of three where the 7.6 GB checkpoint\n"
        "becomes Q4_K_M, else the best of several; other tools' jobs ran once. `make bench` repeats it on your machine.\n"
        "[Other processors](docs/measured.md).\n\n" + last
    )
    title = "# Measured on other processors\n\nAs in the [README](../README.md), by the versions that are named.\n\n"
    return readme, title + "\n".join(others)


def write_pages() -> None:
    before, rest = README.read_text().split(BEGIN)
    readme, others = pages()
    README.write_text(before + BEGIN + readme + END + rest.split(END)[1])
    OTHERS.write_text(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--mergekit", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    if not a.table:
        if a.peers is None:
            parser.error("--peers is needed to measure")
        peers, work = ["--peers", str(a.peers)], ["--work", str(a.work)]
        scripts = {
            "kernels": [["kernels.py", *peers], ["kernels.py", *peers, "--imatrix"]],
            "bandwidth": [["bandwidth.py"]],
            "dequant": [["dequant.py", *peers]],
            "convert": [["convert.py", *peers, *work]],
            "scaling": [["scaling.py", *work]],
            "outputs": [["outputs.py", *work]],
            "merge": [["merge.py", *work, *(["--peer", str(a.mergekit)] if a.mergekit else [])]],
            "merge-copy": [["merge.py", *work, "--methods", "", "--copy", "1.5B", "--copy-methods", COPIED]],
            "one-pass": [["one_pass.py", *peers, *work, "--mergekit", str(a.mergekit)]] if a.mergekit else [],
            "forward": [["forward.py"]],
            "hub": [["hub.py", *work]],
        }
        chosen = a.only.split(",") if a.only else list(scripts)
        if unknown := set(chosen) - scripts.keys():
            parser.error(f"--only takes {','.join(scripts)}, not {','.join(sorted(unknown))}")
        for name in chosen:
            lines: list[str] = []
            for script, *extra in scripts[name]:
                done = subprocess.run(
                    [sys.executable, str(HERE / script), *extra], stdout=subprocess.PIPE, text=True, check=True
                )
                print(done.stdout, end="", flush=True)
                lines += done.stdout.splitlines()
            keep(lines)
    write_pages()


def keep(lines: list[str]) -> None:
    """Put new results in the place of old ones of the same kind and processor, behind those of others."""
    new = [json.loads(line) for line in lines]
    replaced = {(r["bench"], r.get("cpu")) for r in new}
    kept = [r for r in records() if (r["bench"], r.get("cpu")) not in replaced]
    RESULTS.write_text("".join(json.dumps(r) + "\n" for r in [*kept, *new]))


if __name__ == "__main__":
    main()
