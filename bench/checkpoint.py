"""A synthetic checkpoint in the shape of Llama or Gemma 2: real shapes, heavy-tailed values, few layers; written at disk speed.

    checkpoint.py OUT [--shape 70b] [--layers 2]

Values are Student t (8 degrees of freedom, scale 0.02) in bf16, cut from one random pool. The tokenizer is that of the
bundled model, so the vocabulary is padded. Needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

#: hidden, feed-forward, heads, key/value heads, vocabulary, layers
SHAPES = {
    "70b": (8192, 28672, 64, 8, 128256, 80), "8b": (4096, 14336, 32, 8, 128256, 32), "gemma2-2b": (2304, 9216, 8, 4, 256000, 26),
}  # fmt: skip
TOKENIZER = Path(__file__).resolve().parent.parent / "examples" / "tiny-gemma3"
SHARD_BYTES = 5_000_000_000


def tensors_of(shape: str, layers: int) -> list[tuple[str, tuple[int, ...]]]:
    hidden, ffn, heads, kv, vocab, _ = SHAPES[shape]
    head = head_width(shape)
    out: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocab, hidden))]
    for i in range(layers):
        p = f"model.layers.{i}."
        out += [
            (p + "input_layernorm.weight", (hidden,)),
            (p + "mlp.down_proj.weight", (hidden, ffn)),
            (p + "mlp.gate_proj.weight", (ffn, hidden)),
            (p + "mlp.up_proj.weight", (ffn, hidden)),
            (p + "post_attention_layernorm.weight", (hidden,)),
            (p + "self_attn.k_proj.weight", (kv * head, hidden)),
            (p + "self_attn.o_proj.weight", (hidden, heads * head)),
            (p + "self_attn.q_proj.weight", (heads * head, hidden)),
            (p + "self_attn.v_proj.weight", (kv * head, hidden)),
        ]
        if is_gemma(shape):
            out += [(f"{p}{side}_feedforward_layernorm.weight", (hidden,)) for side in ("pre", "post")]
    if is_gemma(shape):
        return [*out, ("model.norm.weight", (hidden,))]
    return [*out, ("model.norm.weight", (hidden,)), ("lm_head.weight", (vocab, hidden))]


def is_gemma(shape: str) -> bool:
    return shape.startswith("gemma")


def head_width(shape: str) -> int:
    hidden, _, heads, *_ = SHAPES[shape]
    return 256 if is_gemma(shape) else hidden // heads


def bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write(out: Path, shape: str = "70b", layers: int = 2, seed: int = 0) -> None:
    """Write the checkpoint folder ``out``; does nothing when it is there."""
    if (out / "config.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    hidden = SHAPES[shape][0]
    rng = np.random.default_rng(seed)
    pool = bf16(rng.standard_t(8, size=32 << 20) * 0.02)
    norm = bf16(1 + rng.standard_normal(hidden) * 0.1)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, dims in tensors_of(shape, layers):
        n_bytes = 2 * int(np.prod(dims))
        if filled + n_bytes > SHARD_BYTES and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, dims))
        filled += n_bytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, at = {}, 0
        for name, dims in shard:
            n_bytes = 2 * int(np.prod(dims))
            header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + n_bytes]}
            weight_map[name] = file
            at += n_bytes
        text = json.dumps(header).encode()
        with open(out / file, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for _, dims in shard:
                if len(dims) == 1:
                    f.write(norm.tobytes())
                    continue
                left, start = int(np.prod(dims)), int(rng.integers(len(pool)))
                while left:
                    n = min(left, len(pool) - start)
                    f.write(pool[start : start + n].data)
                    left, start = left - n, 0
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_side_files(out, shape, layers, {})


def write_side_files(out: Path, shape: str, layers: int, more: dict[str, object]) -> None:
    """Tokenizer and config.json, the latter with what is in ``more``."""
    hidden, ffn, heads, kv, vocab, _ = SHAPES[shape]
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, out / name)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_attention_heads": heads, "num_key_value_heads": kv, "num_hidden_layers": layers, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "head_dim": head_width(shape), "max_position_embeddings": 8192,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    if is_gemma(shape):
        config |= {
            "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True, "query_pre_attn_scalar": 256,
        }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config | more, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="70b")
    parser.add_argument("--layers", type=int, default=2)
    a = parser.parse_args()
    write(a.out, a.shape, a.layers)
