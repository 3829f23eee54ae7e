"""Cut tests/data/check/verdicts.json out of the reference data:   make_verdicts.py REFERENCE

One case for each kind of model: dense, experts, latent attention, recurrent, hybrid, encoder, codec, adapters within.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "data" / "check" / "verdicts.json"
CASES = (
    *(
        "llama",
        "gemma3-text",
        "mixtral",
        "qwen2moe",
        "deepseek2",
        "bert-classify",
        "mamba",
        "jamba",
        "qwen35moe",
        "gpt-oss",
    ),
    *(
        "lfm2",
        "nemotron-nano-vl",
        "rwkv6",
        "gemma4-moe",
        "t5encoder",
        "wavtokenizer",
        "openelm",
        "granite-switch",
        "falcon-7b",
    ),
)


def small(spec: dict[str, Any]) -> dict[str, Any]:
    """Long texts cut, digests left out."""
    kept = {key: value for key, value in spec.items() if key != "sha256"}
    if isinstance(kept.get("value"), str):
        kept["value"] = kept["value"][:40] if "{%" not in kept["value"] else "{{ messages }}"
    if "first" in kept:
        kept["first"] = kept["first"][-1:]
    return kept


def main() -> None:
    root = Path(sys.argv[1]) / "golden"
    verdicts = json.loads((root / "loader" / "verdicts.json").read_text())
    found = {}
    for name in CASES:
        output = json.loads((root / "zoo" / f"{name}.json").read_text())["outputs"]["f16"]
        found[name] = {
            "kv": {key: small(spec) for key, spec in output["kv"].items()},
            "tensors": [tensor[:3] for tensor in output["tensors"]],
            "verdicts": verdicts[name],
        }
    OUT.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}" for name, case in found.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
