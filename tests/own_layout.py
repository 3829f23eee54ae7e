"""Models in Mistral's own layout: params.json, consolidated.safetensors and tekken.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from small_models import write_safetensors

TOKENS = [*(bytes([b]) for b in range(256)), b"ab", b"abab", b"bab", b" a"]
PARAMS: dict[str, Any] = {
    "dim": 32, "n_layers": 1, "head_dim": 8, "hidden_dim": 64, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 1e6, "norm_eps": 1e-5,
    "vocab_size": 280, "max_position_embeddings": 256,
}  # fmt: skip
SHAPES = {
    "tok_embeddings": (280, 32), "output": (280, 32), "norm": (32,), "layers.0.attention_norm": (32,), "layers.0.ffn_norm": (32,),
    "layers.0.attention.wq": (32, 32), "layers.0.attention.wk": (16, 32), "layers.0.attention.wv": (16, 32),
    "layers.0.attention.wo": (32, 32), "layers.0.feed_forward.w1": (64, 32), "layers.0.feed_forward.w2": (32, 64),
    "layers.0.feed_forward.w3": (64, 32),
}  # fmt: skip


def tekken(version: str = "v7", special: Any = None, **config: Any) -> dict[str, Any]:
    config = {"default_vocab_size": 280, "default_num_special_tokens": 20, "version": version, **config}
    vocab = [{"rank": n, "token_bytes": base64.b64encode(t).decode()} for n, t in enumerate([*TOKENS, b"beyond"])]
    return {"config": config, "vocab": vocab, "special_tokens": special}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(sum(name.encode())).standard_normal(shape).astype("<f4")


def own_layout(folder: Path, without: tuple[str, ...] = (), more: Any = None, **params: Any) -> Path:
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps({k: v for k, v in {**PARAMS, **params}.items() if k not in without}))
    (folder / "tekken.json").write_text(json.dumps(tekken()))
    shapes = {name: shape for name, shape in SHAPES.items() if not name.startswith(without or "-")}
    tensors = {f"{name}.weight": ("F32", values(name, shape)) for name, shape in shapes.items()}
    write_safetensors(folder / "consolidated.safetensors", {**tensors, **(more or {})})
    return folder
