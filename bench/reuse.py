"""What copying from an older output saves: a mix beside a smaller one, and one tensor's type changed, against a plain copy.

    reuse.py MODEL [--work /tmp/streamconv-bench] [--rounds 3] [--old Q4_K_S] [--new Q4_K_M]     one JSON line per measurement
    reuse.py MODEL --old IQ3_S --new IQ3_S --changed 'blk\\.0\\.attn_k=IQ4_XS'

In turns, from files that lie in memory: ``cp`` of the older output and a sync; the conversion that copies; ``plan``, for what
starting and planning take. Once: the same conversion from nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from measure import Run, place, run

STREAMCONV = [sys.executable, "-m", "streamconv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--old", default="Q4_K_S")
    parser.add_argument("--new", default="Q4_K_M")
    parser.add_argument("--changed", help="REGEX=TYPE")
    a = parser.parse_args()
    work = a.work / "reuse"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    old, new, plain = work / "old.gguf", work / "new.gguf", work / "copy.gguf"
    run([*STREAMCONV, "convert", str(a.model), str(old), "--type", a.old, "--manifest", "--quiet"])
    words = [str(a.model), str(new), "--type", a.new, *(["--tensor-type", a.changed] if a.changed else [])]
    convert, how = [*STREAMCONV, "convert", *words, "--quiet"], ["--reuse", str(old)]
    facts = work / "facts.json"
    with facts.open("w") as f:
        subprocess.run([*STREAMCONV, "plan", *words, *how, "--json"], stdout=f, check=True)
    reuse = json.loads(facts.read_text())
    runs: dict[str, list[Run]] = {"cp and sync": [], "plan": [], "reuse": []}
    for _ in range(a.rounds):
        for path in (new, plain):
            path.unlink(missing_ok=True)
        old.read_bytes()
        runs["cp and sync"].append(run(["sh", "-c", f"cp --reflink=never {old} {plain} && sync -d {plain}"]))
        runs["plan"].append(run([*STREAMCONV, "plan", *words, *how, "--quiet"]))
        runs["reuse"].append(run([*convert, *how]))
    for what, found in runs.items():
        best = {"wall_s": min(r.wall_s for r in found), "cpu_s": min(r.cpu_s for r in found)}
        told = {"bytes": old.stat().st_size} if what != "reuse" else {
            "bytes": reuse["output_bytes"], "copied": reuse["reuse"]["bytes"], "tensors": reuse["reuse"]["tensors"],
        }  # fmt: skip
        print(json.dumps({"bench": "reuse", **place(), "what": what, "types": f"{a.old} -> {a.new}", "changed": a.changed,
                          **{k: round(v, 2) for k, v in best.items()}, **told}), flush=True)  # fmt: skip
    made = new.rename(work / "made.gguf")
    new.with_name(".new.gguf.streamconv").unlink()
    whole = run([*convert, "--no-reuse"])
    same = made.read_bytes() == new.read_bytes()
    print(
        json.dumps({"bench": "reuse", **place(), "what": "from nothing", **whole.as_dict(), "same": same}), flush=True
    )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
