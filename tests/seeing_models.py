"""A small Gemma 3 that sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from small_models import Tensors, changed

VISION = "vision_tower.vision_model."
SHAPES = {
    f"{VISION}embeddings.patch_embedding.weight": (32, 3, 4, 4),
    f"{VISION}embeddings.patch_embedding.bias": (32,),
    f"{VISION}embeddings.position_embedding.weight": (4, 32),
    f"{VISION}post_layernorm.weight": (32,),
    "multi_modal_projector.mm_input_projection_weight": (32, 64),
    "multi_modal_projector.mm_soft_emb_norm.weight": (32,),
    f"{VISION}encoder.layers.0.mlp.fc1.weight": (64, 32),
}
TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4, "layer_norm_eps": 1e-6,
}  # fmt: skip


def make_seeing_model(data: Path, folder: Path) -> Path:
    """In ``folder``, out of the text model in ``data``; beside a tensor that belongs to neither part."""
    rng = np.random.default_rng(7)

    def tensors(text: Tensors) -> Tensors:
        tower = {name: ("F32", rng.standard_normal(shape).astype(np.float32)) for name, shape in SHAPES.items()}
        return {f"language_model.{name}": value for name, value in text.items()} | tower

    def config(values: dict[str, Any]) -> None:
        text = {key: value for key, value in values.items() if key != "architectures"}
        values.clear()
        values |= {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
        values["vision_config"] = TOWER

    made = changed(data / "checkpoints" / "gemma3-text" / "hf", folder, tensors, config)
    (made / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return made
