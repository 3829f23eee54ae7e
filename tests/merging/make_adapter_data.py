"""Cut tests/data/merging/{vocabulary,adapters}.npz out of the reference data:   make_adapter_data.py REFERENCE/golden/merge

Of vocabularies the tokenizers and the first columns of the embeddings, whose rows are what the tests are about; of adapters
what changes a few small tensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from small_models import read_safetensors  # noqa: E402

OUT = ROOT / "tests" / "data" / "merging"
COLUMNS = 8
EMBEDDING = "model.embed_tokens.weight"
CASES = ("tok_union_linear", "tok_base_linear", "tok_token_policies", "tok_union_other_bpe")
KEPT = ("layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj", "layers.0.mlp.down_proj")
ADAPTERS = {
    "lora_plain": "lora_passthrough",
    "lora_dora": "lora_dora_passthrough",
    "lora_embed": "lora_embed_passthrough",
}


def text(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), np.uint8)


def main() -> None:
    root = Path(sys.argv[1])
    found: dict[str, np.ndarray] = {}
    for folder in (*(root / "inputs" / "tok").iterdir(), *(root / case / "expected" for case in CASES)):
        name = folder.name if folder.name != "expected" else folder.parent.name
        found[f"{name}:rows"] = read_safetensors(folder / "model.safetensors")[EMBEDDING][1][:, :COLUMNS]
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (folder / file).exists() and name not in CASES:
                found[f"{name}:{file}"] = text(folder / file)
        if name in CASES:
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            found[f"{name}:added"] = np.frombuffer(json.dumps(tokenizer["added_tokens"]).encode(), np.uint8)
            found[f"{name}:config.yml"] = text(root / name / "config.yml")
    np.savez_compressed(OUT / "vocabulary.npz", **found)

    found = {}
    base = read_safetensors(root / "inputs" / "llama" / "base" / "model.safetensors")
    for adapter, case in ADAPTERS.items():
        expected = read_safetensors(root / case / "expected" / "model.safetensors")
        kept = ("embed_tokens",) if adapter == "lora_embed" else KEPT
        for name, (_, words) in expected.items():
            if any(part in name for part in kept):
                found[f"{adapter} merged:{name}"] = words
                found[f"base:{name}"] = base[name][1]
        folder = root / "inputs" / adapter
        found[f"{adapter}:adapter_config.json"] = text(folder / "adapter_config.json")
        for name, (_, words) in read_safetensors(folder / "adapter_model.safetensors").items():
            if any(part in name for part in kept):
                found[f"{adapter}:{name}"] = words
    np.savez_compressed(OUT / "adapters.npz", **found)


if __name__ == "__main__":
    main()
