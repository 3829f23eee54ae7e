"""The checkpoint of ``checkpoint.py`` as bitsandbytes would have stored it: NF4, 70B-shaped, written at disk speed.

    nf4_checkpoint.py OUT [--shape 70b] [--layers 2] [--plain]

Projections are NF4 with blocks of 64, their scales quantized again (unless --plain) in blocks of 256; embedding, head and norms
stay bf16, as transformers leaves them. Codes are those of Student t values, so they are used as often as in a real model.
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
SKIP = ("embed_tokens", "norm", "lm_head")

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


def write(out: Path, shape: str = "70b", layers: int = 2, seed: int = 0, plain: bool = False) -> None:
    """Write the checkpoint folder ``out``, one shard a layer; does nothing when it is there."""
    if (out / "config.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    pool = Pool(seed)
    groups: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, dims in checkpoint.tensors_of(shape, layers):
        words = name.split(".")
        groups.setdefault(words[2] if words[1] == "layers" else "rest", []).append((name, dims))
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
    checkpoint.write_side_files(out, shape, layers, {"quantization_config": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": not plain, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
    }})  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=checkpoint.SHAPES, default="70b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="plain scales instead of quantized ones")
    a = parser.parse_args()
    write(a.out, a.shape, a.layers, plain=a.plain)
