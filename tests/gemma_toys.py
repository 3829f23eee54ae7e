"""Making small Gemma 2 and PaliGemma checkpoints, and reading weight files of gemma.cpp by the plainest means."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
from quantized_files import bf16
from small_models import DATA, Tensors, write_safetensors

TOKENIZER = DATA / "checkpoints" / "gemma3-text" / "hf" / "tokenizer.model"
#: of the text models; 20 and 36 are no multiples of a group of any type
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 20, "intermediate_size": 36, "head_dim": 12,
    "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2, "vocab_size": 32, "max_position_embeddings": 64,
    "query_pre_attn_scalar": 12, "sliding_window": 16, "torch_dtype": "bfloat16", "eos_token_id": 1,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 2, "image_size": 28,
    "num_hidden_layers": 1, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip


def text_shapes(config: dict[str, Any] = CONFIG) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of a text model, without what comes before ``layers``."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = (config["head_dim"] * config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (v, d), "norm.weight": (d,)}
    for n in range(config["num_hidden_layers"]):
        at = f"layers.{n}."
        shapes |= {f"{at}mlp.{name}_proj.weight": (f, d) for name in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (d, f), f"{at}self_attn.o_proj.weight": (d, q)}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (rows, d) for name, rows in {"q": q, "k": kv, "v": kv}.items()}
        norms = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
        shapes |= {f"{at}{name}.weight": (d,) for name in norms}
    return shapes


def tower_shapes() -> dict[str, tuple[int, ...]]:
    """The same of the tower of images and its projector."""
    d, f = TOWER["hidden_size"], TOWER["intermediate_size"]
    at = "encoder.layers.0."
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.patch_embedding.weight": (d, 3, 14, 14), "embeddings.patch_embedding.bias": (d,),
        "embeddings.position_embedding.weight": (4, d), f"{at}mlp.fc1.weight": (f, d), f"{at}mlp.fc1.bias": (f,),
        f"{at}mlp.fc2.weight": (d, f), f"{at}mlp.fc2.bias": (d,),
    }  # fmt: skip
    for name in ("post_layernorm", f"{at}layer_norm1", f"{at}layer_norm2"):
        shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= {f"{at}self_attn.{name}.weight": (d, d), f"{at}self_attn.{name}.bias": (d,)}
    return {f"vision_tower.vision_model.{name}": shape for name, shape in shapes.items()}


def random(shapes: dict[str, tuple[int, ...]], seed: int = 0, scale: float = 0.3) -> Tensors:
    """Random bfloat16 tensors of these shapes."""
    rng = np.random.default_rng(seed)
    return {
        name: ("BF16", bf16(scale * rng.standard_normal(shape).astype(np.float32))) for name, shape in shapes.items()
    }


def gemma2(folder: Path, tensors: Tensors | None = None, seed: int = 0, scale: float = 0.3, **config: Any) -> Path:
    """A Gemma 2 checkpoint with these tensors, or random ones, and more in its configuration."""
    said = {**CONFIG, **config}
    shapes = {f"model.{name}": shape for name, shape in text_shapes(said).items()}
    return written(folder, tensors or random(shapes, seed, scale), said)


def paligemma() -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Name -> shape of a PaliGemma 2 with 64 tokens of images, and its configuration."""
    text = {**CONFIG, "vocab_size": 96}
    shapes = {f"language_model.model.{name}": shape for name, shape in text_shapes(text).items()}
    shapes |= tower_shapes()
    shapes |= {"multi_modal_projector.linear.weight": (20, 24), "multi_modal_projector.linear.bias": (20,)}
    said = {
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "text_config": text,
        "vision_config": TOWER, "torch_dtype": "bfloat16",
    }  # fmt: skip
    return shapes, said


def written(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    """The checkpoint ``folder`` of these tensors, with a tokenizer."""
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(TOKENIZER, folder / "tokenizer.model")
    return folder


def blobs(path: Path) -> dict[str, bytes]:
    """Key -> bytes of a weight file whose directory is at its beginning."""
    data = path.read_bytes()
    magic, n, size = struct.unpack_from("<IIQ", data)
    assert (magic, size, size % 65536) == (0x0A534253, len(data), 0)
    keys = [data[16 + 16 * i : 32 + 16 * i].rstrip(b"\0").decode() for i in range(n)]
    found, end = {}, -(-(16 + 32 * n) // 256) * 256
    for i, key in enumerate(keys):
        offset, length = struct.unpack_from("<QQ", data, 16 + 16 * n + 16 * i)
        assert offset == end, f"{key}: a gap before the blob"
        found[key] = data[offset : offset + length]
        end = -(-(offset + length) // 256) * 256
    assert not any(data[end:])
    return found


def toc(data: bytes) -> dict[str, tuple[int, int, int, int, int, float, int]]:
    """Key -> type, bytes of an element, elements, rows, columns, scale, stride."""
    words, at, found = np.frombuffer(data, "<u4"), 0, {}
    while at < len(words):
        n, k = int(words[at]), int(words[at + 1])
        name = words[at + 2 : at + 2 + k].tobytes().rstrip(b"\0").decode()
        rest = words[at + 2 + k : at + 1 + n]
        kind, width, elements, rows, cols = (int(word) for word in rest[:5])
        found[name] = (kind, width, elements, rows, cols, float(rest[5:6].view("<f4")[0]), int(rest[6]))
        at += 1 + n
    return found
