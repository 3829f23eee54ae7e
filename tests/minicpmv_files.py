"""Making small MiniCPM-V 2.6 checkpoints: Qwen 2, SigLIP and a resampler, any of their layers as bitsandbytes has them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from quantized_files import Tensors, bf16, nf4
from small_models import DATA, write_safetensors

#: the runtime cuts the resampler into heads of 128, and counts 70 positions a side
HIDDEN, FFN, KEYS, WIDTH, PATCHES, QUERIES, WORDS = 128, 160, 64, 32, 70, 4, 512
_LAYER = re.compile(r"llm\.model\.layers\.\d+\..*_proj\.weight")
#: what bitsandbytes quantizes beside the text model, unless it is told to skip ``vpm`` and ``resampler``
_TOWER = re.compile(r"vpm\.encoder\..*(fc\d|_proj)\.weight|resampler\..*_proj\.weight")
CONFIG: dict[str, Any] = {
    "architectures": ["MiniCPMV"], "model_type": "minicpmv", "version": 2.6, "hidden_size": HIDDEN, "intermediate_size": FFN,
    "num_attention_heads": 4, "num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": WORDS, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 256, "hidden_act": "silu", "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "query_num": QUERIES, "image_size": 448, "vision_config": {
        "model_type": "siglip", "hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, "patch_size": 14, "image_size": 14 * PATCHES,
    },
}  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, as the published one names it."""
    at = "llm.model.layers.0."
    rows = {"self_attn.q_proj": HIDDEN, "self_attn.k_proj": KEYS, "self_attn.v_proj": KEYS}
    found: dict[str, tuple[int, ...]] = {
        "llm.lm_head.weight": (WORDS, HIDDEN), "llm.model.embed_tokens.weight": (WORDS, HIDDEN), "llm.model.norm.weight": (HIDDEN,),
        f"{at}input_layernorm.weight": (HIDDEN,), f"{at}post_attention_layernorm.weight": (HIDDEN,),
        **{f"{at}{name}.weight": (n, HIDDEN) for name, n in rows.items()}, **{f"{at}{name}.bias": (n,) for name, n in rows.items()},
        f"{at}self_attn.o_proj.weight": (HIDDEN, HIDDEN), f"{at}mlp.gate_proj.weight": (FFN, HIDDEN),
        f"{at}mlp.up_proj.weight": (FFN, HIDDEN), f"{at}mlp.down_proj.weight": (HIDDEN, FFN),
        "resampler.attn.in_proj_bias": (3 * HIDDEN,), "resampler.attn.in_proj_weight": (3 * HIDDEN, HIDDEN),
        "resampler.attn.out_proj.bias": (HIDDEN,), "resampler.attn.out_proj.weight": (HIDDEN, HIDDEN),
        "resampler.kv_proj.weight": (HIDDEN, WIDTH), "resampler.proj": (HIDDEN, HIDDEN), "resampler.query": (QUERIES, HIDDEN),
        **{f"resampler.{name}.{end}": (HIDDEN,) for name in ("ln_kv", "ln_post", "ln_q") for end in ("bias", "weight")},
        "vpm.embeddings.patch_embedding.bias": (WIDTH,), "vpm.embeddings.patch_embedding.weight": (WIDTH, 3, 14, 14),
        "vpm.embeddings.position_embedding.weight": (PATCHES**2, WIDTH),
        "vpm.post_layernorm.bias": (WIDTH,), "vpm.post_layernorm.weight": (WIDTH,),
    }  # fmt: skip
    linear = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("k", "out", "q", "v")}
    for block in (0, 1):
        for name, dims in {**linear, "mlp.fc1": (64, WIDTH), "mlp.fc2": (WIDTH, 64)}.items():
            found[f"vpm.encoder.layers.{block}.{name}.weight"] = dims
            found[f"vpm.encoder.layers.{block}.{name}.bias"] = dims[:1]
        for name in ("layer_norm1", "layer_norm2"):
            found |= {f"vpm.encoder.layers.{block}.{name}.{end}": (WIDTH,) for end in ("bias", "weight")}
    return found


def side_files(folder: Path, more: dict[str, Any]) -> None:
    """Configuration, with what is in ``more``, image processor, and a tokenizer as Qwen 2 has."""
    (folder / "config.json").write_text(json.dumps(CONFIG | more))
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "MiniCPMVImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DATA / "checkpoints" / "qwen2-yarn" / "hf" / name, folder / name)


def minicpmv(folder: Path, tower: bool) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A double-quantized NF4 checkpoint, the same as plain bf16, and the values of all tensors.

    tower : whether the vision tower and the resampler are quantized too; their skip list names them otherwise
    """
    rng = np.random.default_rng(3)
    packed: Tensors = {}
    plain: Tensors = {}
    values: dict[str, np.ndarray] = {}
    for name, shape in shapes().items():
        words = bf16(rng.standard_normal(shape).astype(np.float32) * 0.1)
        parts: Tensors = {name: ("BF16", words)}
        values[name] = (words.astype(np.uint32) << 16).view(np.float32)
        if _LAYER.fullmatch(name) or (tower and _TOWER.fullmatch(name)):
            parts, values[name] = nf4(name, shape, rng)
        packed |= parts
        plain[name] = "BF16", bf16(values[name])
    skipped = ["lm_head"] if tower else ["out_proj", "kv_proj", "lm_head", "vpm", "resampler"]
    made = []
    for kind, tensors in {"nf4": packed, "bf16": plain}.items():
        made.append(folder / kind)
        made[-1].mkdir(parents=True)
        write_safetensors(made[-1] / "model.safetensors", tensors)
        said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": skipped}  # fmt: skip
        side_files(made[-1], {"quantization_config": said} if kind == "nf4" else {})
    return made[0], made[1], values
