"""Cut the small copies in tests/data/merging out of the reference data:   make_data.py REFERENCE/golden/merge

Methods work on one tensor at a time, so a few small tensors of each case say as much as all of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from small_models import read_safetensors  # noqa: E402

OUT = ROOT / "tests" / "data" / "merging"
MODELS = [f"{kind}/{name}" for kind in ("llama", "llama_bf16") for name in ("base", "ft1", "ft2", "ft3")]
KEPT = ("self_attn.k_proj.weight", "input_layernorm.weight", "model.norm.weight")


def read_folder(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(read_safetensors(path))
    return {name: value for name, value in found.items() if name.endswith(KEPT)}


def main() -> None:
    root = Path(sys.argv[1])
    arrays, cases = {}, {}
    for model in MODELS:
        for name, (_, words) in read_folder(root / "inputs" / model).items():
            arrays[f"inputs/{model}:{name}"] = words
    for case in sorted(p.parent for p in root.glob("*/config.yml")):
        text = (case / "config.yml").read_text()
        if "merge_method" not in text or any(
            word in text for word in ("lora", "tokenizer", "experts", "safetensors", "gemma2", "llama_tied", "\n---")
        ):
            continue
        meta = json.loads((case / "meta.json").read_text())
        expected = read_folder(case / "expected")
        cases[case.name] = {
            "recipe": yaml.safe_load(text),
            "gap": meta.get("bf16_arith_vs_f32_arith"),
            "dtypes": sorted({dtype for dtype, _ in expected.values()}),
        }
        for name, (_, words) in expected.items():
            arrays[f"{case.name}:{name}"] = words
    OUT.mkdir(exist_ok=True)
    np.savez_compressed(OUT / "tensors.npz", **arrays)
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
