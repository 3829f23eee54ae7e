"""The checkpoint of ``checkpoint.py`` as bitsandbytes would have stored it: NF4, 70B-shaped, written at disk speed.

    nf4_checkpoint.py OUT [--shape 70b] [--layers 2] [--plain] [--vocabulary N]

Projections are NF4 with blocks of 64, their scales quantized again (unless --plain) in blocks of 256; embedding, head and norms
stay bf16, as transformers leaves them. The shape minicpmv is MiniCPM-V 2.6: --layers are those of
the text and of the tower each. Codes are those of Student t values, so they are used as often as in a real model.
Needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import checkpoint
import numpy as np

NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
BLOCK, NESTED = 64, 256
_POOL = 8 << 20
SKIP = ("embed_tokens", "norm", "lm_head", "bias", "embeddings", "resampler", "out_proj")
#: of MiniCPM-V 2.6: hidden, feed-forward, key/value rows, vocabulary of the text; hidden, feed-forward, positions of the tower
TEXT, TOWER, QUERIES = (3584, 18944, 512, 151666), (1152, 4304, 4900), 64

#: dtype, shape, and the bytes in pieces
Part = tuple[str, tuple[int, ...], Iterator[bytes]]


class Pool:
    """Random codes and scales that every tensor is cut from."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        x = (self.rng.standard_t(8, size=(_POOL // BLOCK, BLOCK)) * 0.02).astype(np.float32)
        self.absmax = np.abs(x).max(axis=1)
        codes = np.searchsorted((NF4[1:] + NF4[:-1]) / 2, x / self.absmax[:, None]).astype(np.uint8).reshape(-1)
        self.packed = codes[0::2] << 4 | codes[1::2]
        # The library's dynamic map is read from the file, so any ascending one in [-1, 1] does.
        self.map = np.linspace(-0.993, 1.0, 256).astype(np.float32)
        self.offset = np.float32(self.absmax.mean())
        centred = self.absmax - self.offset
        self.nested_absmax = np.float32(np.abs(centred).max())
        self.nested = (
            np.abs(self.map[None, :] - (centred[:4096] / self.nested_absmax)[:, None]).argmin(1).astype(np.uint8)
        )
        self.words = checkpoint.bf16(x.reshape(-1))

    def cut(self, pool: np.ndarray, n: int) -> Iterator[bytes]:
        """``n`` elements of ``pool`` from a random place on, round and round."""
        at = int(self.rng.integers(len(pool)))
        while n:
            part = pool[at : at + n]
            yield part.tobytes()
            n, at = n - len(part), 0


def parts_of(name: str, dims: tuple[int, ...], pool: Pool, plain: bool) -> dict[str, Part]:
    n = math.prod(dims)
    if any(word in name for word in SKIP):
        return {name: ("BF16", dims, pool.cut(pool.words, n))}
    n_blocks = -(-n // BLOCK)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(dims)}
    found: dict[str, Part] = {}
    if plain:
        found[f"{name}.absmax"] = "F32", (n_blocks,), pool.cut(pool.absmax, n_blocks)
    else:
        n_nested = -(-n_blocks // NESTED)
        state |= {"nested_blocksize": NESTED, "nested_dtype": "float32", "nested_offset": float(pool.offset)}
        found[f"{name}.absmax"] = "U8", (n_blocks,), pool.cut(pool.nested, n_blocks)
        scales = np.full(n_nested, pool.nested_absmax, np.float32)
        found[f"{name}.nested_absmax"] = "F32", (n_nested,), iter([scales.tobytes()])
        found[f"{name}.nested_quant_map"] = "F32", (256,), iter([pool.map.tobytes()])
    found[f"{name}.quant_map"] = "F32", (16,), iter([NF4.tobytes()])
    text = json.dumps(state).encode()
    found[f"{name}.quant_state.bitsandbytes__nf4"] = "U8", (len(text),), iter([text])
    found[name] = "U8", ((n + 1) // 2, 1), pool.cut(pool.packed, (n + 1) // 2)
    return found


def minicpmv(layers: int, vocabulary: int) -> list[tuple[str, tuple[int, ...]]]:
    """Tensors of a MiniCPM-V 2.6 with as many layers in the text as in the tower."""
    (hidden, ffn, kv, _), (width, inner, positions) = TEXT, TOWER
    out: list[tuple[str, tuple[int, ...]]] = [
        ("llm.model.embed_tokens.weight", (vocabulary, hidden)), ("llm.lm_head.weight", (vocabulary, hidden)),
        ("llm.model.norm.weight", (hidden,)), ("resampler.query", (QUERIES, hidden)), ("resampler.proj", (hidden, hidden)),
        ("resampler.kv_proj.weight", (hidden, width)), ("resampler.attn.out_proj.weight", (hidden, hidden)),
        ("resampler.attn.out_proj.bias", (hidden,)), ("resampler.attn.in_proj_weight", (3 * hidden, hidden)),
        ("resampler.attn.in_proj_bias", (3 * hidden,)), ("vpm.embeddings.patch_embedding.weight", (width, 3, 14, 14)),
        ("vpm.embeddings.patch_embedding.bias", (width,)), ("vpm.embeddings.position_embedding.weight", (positions, width)),
        *((f"resampler.ln_{part}.{end}", (hidden,)) for part in ("q", "kv", "post") for end in ("weight", "bias")),
        *((f"vpm.post_layernorm.{end}", (width,)) for end in ("weight", "bias")),
    ]  # fmt: skip
    for i in range(layers):
        p, v = f"llm.model.layers.{i}.", f"vpm.encoder.layers.{i}."
        for part, rows in {"q": hidden, "k": kv, "v": kv}.items():
            out += [(f"{p}self_attn.{part}_proj.weight", (rows, hidden)), (f"{p}self_attn.{part}_proj.bias", (rows,))]
        out += [(f"{p}{name}.weight", dims) for name, dims in {
            "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        }.items()]  # fmt: skip
        square = {f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        for name, dims in {**square, "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}.items():
            out += [(f"{v}{name}.weight", dims), (f"{v}{name}.bias", dims[:1])]
        out += [(f"{v}layer_norm{n}.{end}", (width,)) for n in (1, 2) for end in ("weight", "bias")]
    return out


def minicpmv_config(layers: int, vocabulary: int) -> dict[str, object]:
    """What config.json says beside, or instead of, what that of a Llama does."""
    (hidden, ffn, _, _), (width, inner, positions) = TEXT, TOWER
    return {
        "architectures": ["MiniCPMV"], "model_type": "minicpmv", "version": 2.6, "query_num": QUERIES, "hidden_size": hidden,
        "intermediate_size": ffn, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": vocabulary,
        "head_dim": 128, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "image_size": 448, "vision_config": {
            "model_type": "siglip", "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": 16, "patch_size": 14, "image_size": 14 * math.isqrt(positions),
        },
    }  # fmt: skip


def write(
    out: Path, shape: str = "70b", layers: int = 2, seed: int = 0, plain: bool = False, vocabulary: int = TEXT[3]
) -> None:
    """Write the checkpoint folder ``out``, one shard a layer; does nothing when it is there. ``vocabulary``: of a MiniCPM-V."""
    if (out / "config.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    pool = Pool(seed)
    groups: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    sees = shape == "minicpmv"
    for name, dims in minicpmv(layers, vocabulary) if sees else checkpoint.tensors_of(shape, layers):
        _, layered, rest = name.partition(".layers.")
        groups.setdefault(rest.partition(".")[0] if layered else "rest", []).append((name, dims))
    weight_map = {}
    for number, group in enumerate(groups.values(), 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        parts = {k: v for name, dims in group for k, v in parts_of(name, dims, pool, plain).items()}
        header, at = {}, 0
        for name, (dtype, dims, _) in parts.items():
            n_bytes = math.prod(dims) * {"BF16": 2, "F32": 4, "U8": 1}[dtype]
            header[name] = {"dtype": dtype, "shape": list(dims), "data_offsets": [at, at + n_bytes]}
            weight_map[name] = file
            at += n_bytes
        text = json.dumps(header).encode()
        with open(out / file, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for _, _, data in parts.values():
                f.writelines(data)
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    more = minicpmv_config(layers, vocabulary) if sees else {}
    checkpoint.write_side_files(out, "8b" if sees else shape, layers, more | {"quantization_config": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": not plain, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
    }})  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=[*checkpoint.SHAPES, "minicpmv"], default="70b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="plain scales instead of quantized ones")
    parser.add_argument("--vocabulary", type=int, default=TEXT[3], help="rows of the embedding of a minicpmv")
    a = parser.parse_args()
    write(a.out, a.shape, a.layers, plain=a.plain, vocabulary=a.vocabulary)
