"""Small checkpoints that options of the converter are for: 8-bit floats, an embedder with dense modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from small_models import Tensors, changed, write_safetensors

DATA = Path(__file__).resolve().parent / "data"
_IDENTITY = "torch.nn.modules.linear.Identity"


def fp8(folder: Path) -> Path:
    """A Mistral whose projections are 8-bit floats with a scale for every 32 x 32 of them."""
    rng = np.random.default_rng(3)

    def stored(tensors: Tensors) -> Tensors:
        found: Tensors = {}
        for name, (dtype, words) in tensors.items():
            found[name] = dtype, words
            if name.endswith("_proj.weight"):
                n_rows, n_cols = words.shape
                found[name] = "F8_E4M3", rng.integers(0, 0x70, words.shape).astype(np.uint8)
                scales = rng.uniform(0.01, 0.1, (-(-n_rows // 32), -(-n_cols // 32))).astype(np.float32)
                found[f"{name}_scale_inv"] = "F32", scales
        return found

    section = {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic", "fmt": "e4m3"}
    source = DATA / "checkpoints" / "mistral-spm" / "hf"
    return changed(source, folder, stored, lambda c: c.update(quantization_config=section))


def dense(folder: Path, n_in: int, n_out: int, more: Tensors | None = None, **config: Any) -> np.ndarray:
    """The folder of a dense module; its matrix float32[n_out, n_in]."""
    matrix = np.random.default_rng(n_out).standard_normal((n_out, n_in)).astype(np.float32)
    folder.mkdir()
    said = {"in_features": n_in, "out_features": n_out, "bias": False, "activation_function": _IDENTITY, **config}
    (folder / "config.json").write_text(json.dumps(said))
    write_safetensors(folder / "model.safetensors", {"linear.weight": ("F32", matrix), **(more or {})})
    return matrix


def embedder(folder: Path, modules: tuple[str, ...] = ("2_Dense", "3_Dense")) -> dict[str, np.ndarray]:
    """An EmbeddingGemma with dense modules, and the matrix of each."""
    source = DATA / "checkpoints" / "gemma3-text" / "hf"
    changed(
        source, folder, config=lambda c: c.update(architectures=["Gemma3TextModel"], use_bidirectional_attention=True)
    )
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    kinds = {"": "Transformer", "1_Pooling": "Pooling", **dict.fromkeys(modules, "Dense"), "4_Normalize": "Normalize"}
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    sizes = [width, *(64 * (n + 2) for n in range(len(modules) - 1)), width]
    return {path: dense(folder / path, *sizes[n : n + 2]) for n, path in enumerate(modules)}


def colbert(folder: Path, architecture: str = "Lfm2Model") -> np.ndarray:
    """An embedder of LFM 2 with the projection float32[32, 96] of its tokens in a folder of its own; that projection."""
    toys = (json.loads(line) for line in (DATA / "families.json").read_text("utf-8").splitlines())
    toy = next(toy for toy in toys if toy["name"] == "lfm2-b")
    rng, tensors = np.random.default_rng(7), Tensors()
    for name, blocks, shape in toy["tensors"]:
        for each in (name.replace("#", str(block), 1) for block in blocks) if blocks else (name,):
            tensors[each] = "F32", rng.standard_normal(shape).astype(np.float32)
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DATA / "checkpoints" / "qwen3-tied" / "hf" / name).read_bytes())
    (folder / "config.json").write_text(json.dumps({**toy["config"], "architectures": [architecture]}))
    return dense(folder / "1_Dense", 96, 32)
