"""Our LoRA files beside their base in real llama.cpp compute what the merged model computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import read_safetensors, write_safetensors

import streamconv

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]
RANK = 4
#: what llama.cpp multiplies by without a look at adapters
_IGNORED = {"deepseek2-lite": ("lm_head", "q_proj", "kv_a_proj")}
_NOT = ("norm", "rotary", "inv_freq", "router", "mlp.gate.weight", "block_sparse_moe.gate.", "kv_b_proj")


def adapter(model: Path, folder: Path, embeddings: bool, without: tuple[str, ...] = ()) -> Path:
    """An adapter for every linear layer of ``model``, and for its embedding and head; ``without``: parts of names."""
    rng = np.random.default_rng(11)
    shapes = {n: v.shape for path in model.glob("*.safetensors") for n, (_, v) in read_safetensors(path).items()}
    tensors: dict[str, np.ndarray] = {}
    for name, (n_out, n_in) in ((n, s) for n, s in shapes.items() if len(s) == 2):
        stem, looks_up = f"base_model.model.{name.removesuffix('.weight')}", "embed" in name
        if any(part in name for part in (*_NOT, *without)) or (not embeddings and (looks_up or "lm_head" in name)):
            continue
        a, b = (rng.standard_normal(shape).astype("<f4") * 0.1 for shape in ((RANK, n_in), (n_out, RANK)))
        if looks_up:
            tensors |= {f"{stem}.lora_embedding_A": b.T.copy(), f"{stem}.lora_embedding_B": a.T.copy()}
        else:
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors", {n: ("F32", v) for n, v in tensors.items()})
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2, "use_rslora": True, "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("case", [
    "llama2-spm", "mistral-spm", "qwen2-yarn", "mixtral-moe", "qwen2moe", "gptneox", "phi2", "deepseek2-lite", "internlm2",
    "gemma1",
])  # fmt: skip
def test_base_and_adapter_compute_what_the_merged_model_computes(
    case: str, reference: Path, llama: Ask, tmp_path: Path
) -> None:
    model = reference / "golden" / "gguf" / case / "hf"
    facts = json.loads((model.parent / "case.json").read_text())
    config = json.loads((model / "config.json").read_text())
    tied = config.get("tie_word_embeddings", case == "gemma1")
    source = adapter(model, tmp_path / "adapter", not tied, _IGNORED.get(case, ()))
    pre = facts["pretokenizer_override"]
    base, lora, merged = (tmp_path / f"{name}.gguf" for name in ("base", "lora", "merged"))
    streamconv.convert(model, base, type="f32", pre=pre)
    streamconv.convert(source, lora)
    streamconv.convert(base, merged, type="f32", lora=str(lora))
    questions = [
        {"do": "logits", "file": str(file), "tokens": facts["token_ids"], "out": str(tmp_path / f"{n}.npy"), **more}
        for n, (file, more) in enumerate([(base, {}), (base, {"lora": str(lora)}), (merged, {})])
    ]
    assert llama(*questions) == [{"ok": True}] * 3
    plain, beside, inside = (np.load(tmp_path / f"{n}.npy") for n in range(3))
    assert np.abs(beside - inside).max() <= 2e-2
    assert np.abs(plain - inside).max() > 0.1
