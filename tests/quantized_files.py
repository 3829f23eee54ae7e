"""Making small NF4 checkpoints, and what they decode to, by the plainest arithmetic there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from small_models import write_safetensors

#: name -> (dtype as safetensors spells it, array of raw words)
Tensors = dict[str, tuple[str, np.ndarray]]

NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
STATE = ".quant_state.bitsandbytes__nf4"


def blob(state: Any) -> tuple[str, np.ndarray]:
    text = state if isinstance(state, bytes) else json.dumps(state).encode()
    return "U8", np.frombuffer(text, np.uint8)


def bf16(x: np.ndarray) -> np.ndarray:
    """The words of the nearest bfloat16, ties to even."""
    u = np.asarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def nf4(name: str, shape: tuple[int, ...], rng: np.random.Generator, block: int = 64) -> tuple[Tensors, np.ndarray]:
    """The parts of a double-quantized weight, and its values as float32 numbers of bfloat16."""
    n = int(np.prod(shape))
    codes = rng.integers(0, 16, n + n % 2).astype(np.uint8)
    n_blocks = -(-n // block)
    scale_codes = rng.integers(0, 256, n_blocks).astype(np.uint8)
    table = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
    nested = rng.uniform(0.01, 0.02, -(-n_blocks // 256)).astype(np.float32)
    offset = np.float32(0.05)
    values = []
    for e in range(n):
        b = e // block
        scale = np.float32(np.float32(table[scale_codes[b]] * nested[b // 256]) + offset)
        values.append(np.float32(NF4[codes[e]] * scale))
    decoded = (bf16(np.array(values, np.float32)).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    state = {
        "quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(shape), "nested_blocksize": 256,
        "nested_dtype": "float32", "nested_offset": float(offset),
    }  # fmt: skip
    return {
        name: ("U8", (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1)),
        f"{name}.absmax": ("U8", scale_codes),
        f"{name}.quant_map": ("F32", NF4),
        f"{name}.nested_absmax": ("F32", nested),
        f"{name}.nested_quant_map": ("F32", table),
        f"{name}{STATE}": blob(state),
    }, decoded


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 512, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1,
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["lm_head", "up_proj"]},
}  # fmt: skip


def llama(
    folder: Path, change: Callable[[Tensors], Any] = lambda t: None, shards: int = 3, seed: int = 0
) -> tuple[Path, dict[str, np.ndarray]]:
    """A Llama-shaped NF4 checkpoint whose parts lie in ``shards`` files in turn, and the values of all its tensors.

    The skip list of its config.json names a module that is quantized all the same.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir()
    at = "model.layers.0."
    plain = {"model.embed_tokens.weight": (512, 64), "model.norm.weight": (64,), "lm_head.weight": (512, 64),
             f"{at}input_layernorm.weight": (64,), f"{at}post_attention_layernorm.weight": (64,)}  # fmt: skip
    packed = {
        f"{at}self_attn.q_proj.weight": (64, 64), f"{at}self_attn.k_proj.weight": (32, 64),
        f"{at}self_attn.v_proj.weight": (32, 64), f"{at}self_attn.o_proj.weight": (64, 64),
        f"{at}mlp.gate_proj.weight": (96, 64), f"{at}mlp.up_proj.weight": (96, 64), f"{at}mlp.down_proj.weight": (64, 96),
    }  # fmt: skip
    tensors: Tensors = {}
    values: dict[str, np.ndarray] = {}
    for name, shape in plain.items():
        words = bf16(rng.standard_normal(shape).astype(np.float32) * 0.1)
        tensors[name], values[name] = ("BF16", words), (words.astype(np.uint32) << 16).view(np.float32)
    for name, shape in packed.items():
        parts, values[name] = nf4(name, shape, rng)
        tensors.update(parts)
    change(tensors)
    names = sorted(tensors)
    weight_map = {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names[k::shards]})
        weight_map.update({name: file for name in names[k::shards]})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder, values
