"""Decoders of quantized checkpoints on one core: nanoseconds per weight, best of several, against a plain numba loop.

    dequant.py [--peers ~/.cache/streamconv/peers] [--size 4096]      one JSON line per measurement

``nf4`` and ``nf4 double`` are read as float32 rows into a warm buffer, ``bf16`` adds the rounding. The plain loop looks a nibble
up and multiplies, as one would write it first. With bitsandbytes among the peers its public call is measured too. The last
lines are the whole way to Q4_K from nf4 and from bf16, whose ratio is what the encoding costs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from checkpoint import bf16
from measure import place
from nf4_checkpoint import NF4, Pool, parts_of
from numba import njit

import streamconv
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.types import TYPES

PEER = """
import json, sys, time, torch
import bitsandbytes.functional as F
torch.set_num_threads(1)
n = int(sys.argv[1]); w = torch.randn(n, n); found = {}
for dtype in (torch.float32, torch.bfloat16):
    q, state = F.quantize_4bit(w.to(dtype), quant_type="nf4"); best = 1e9
    for _ in range(9):
        began = time.process_time(); F.dequantize_4bit(q, state); best = min(best, time.process_time() - began)
    found[str(dtype).removeprefix("torch.")] = best
print(json.dumps(found))
"""


@njit(cache=True, nogil=True)
def plain_loop(packed, absmax, table, block, out):
    for i in range(len(packed)):
        scale = absmax[2 * i // block]
        out[2 * i] = table[packed[i] >> 4] * scale
        out[2 * i + 1] = table[packed[i] & 15] * scale


def best(f: Callable[[], object], runs: int = 9) -> float:
    """Seconds of the fastest run, by the clock of this process: the machine may be shared."""
    f()
    found = 1e9
    for _ in range(runs):
        began = time.process_time()
        f()
        found = min(found, time.process_time() - began)
    return found


def emit(what: str, n: int, seconds: float, **more: object) -> None:
    record = {
        "bench": "dequant",
        **place(),
        "what": what,
        "ns_per_weight": round(seconds / n * 1e9, 3),
        **more,
    }
    print(json.dumps(record), flush=True)


def write(path: Path, parts: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    header, at = {}, 0
    for name, (dtype, shape, data) in parts.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in parts.values()))
    return path


def nf4(path: Path, size: int, dtype: str, plain: bool) -> Path:
    """A file with the one NF4 weight ``w.weight``, restored as ``dtype``."""
    parts = {k: (t, s, b"".join(d)) for k, (t, s, d) in parts_of("w.weight", (size, size), Pool(1), plain).items()}
    state = "w.weight.quant_state.bitsandbytes__nf4"
    text = parts[state][2].replace(b'"bfloat16"', json.dumps(dtype).encode())
    parts[state] = ("U8", (len(text),), text)
    return write(path, parts)


def measure_decoding(folder: Path, size: int) -> None:
    n = size * size
    out = np.empty((size, size), np.float32)
    pool = Pool(1)
    packed = np.resize(pool.packed, n // 2)
    absmax = np.resize(pool.absmax, n // 64)
    emit("plain numba loop", n, best(lambda: plain_loop(packed, absmax, NF4, 64, out.reshape(-1))))
    emit("numpy fill of the output", n, best(lambda: out.fill(1)))
    for what, dtype, plain in (
        ("nf4", "float32", True), ("nf4 double", "float32", False), ("nf4 double bf16", "bfloat16", False),
        ("nf4 double f16", "float16", False),
    ):  # fmt: skip
        rows = streamconv.open(nf4(folder / f"{dtype}{plain}.safetensors", size, dtype, plain))["w.weight"]
        emit(what, n, best(lambda r=rows: r.read(0, size, out)))
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, n // 2, np.uint8).tobytes()
    scales = bf16(rng.random(n // 64, np.float32))
    half = rng.random(n // 128).astype(np.float16)
    groups, words = size // 128, size // 8
    zeros = rng.integers(0, 1 << 32, groups * words, np.uint32).tobytes()
    others = {
        "int8": ({"w.weight": ("I8", (size, size), codes * 2), "w.SCB": ("F32", (size,), bytes(4 * size))}, None),
        "fp8 block": ({
            "w.weight": ("F8_E4M3", (size, size), bytes(n)),
            "w.weight_scale_inv": ("F32", (size // 128, size // 128), bytes(4 * (size // 128) ** 2)),
        }, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
        "gptq 4 bit": ({
            "w.qweight": ("I32", (words, size), codes), "w.qzeros": ("I32", (groups, words), zeros),
            "w.scales": ("F16", (groups, size), half.tobytes()),
        }, {"quant_method": "gptq", "bits": 4, "group_size": 128}),
        "awq": ({
            "w.qweight": ("I32", (size, words), codes), "w.qzeros": ("I32", (groups, words), zeros),
            "w.scales": ("F16", (groups, size), half.tobytes()),
        }, {"quant_method": "awq", "bits": 4, "group_size": 128}),
        "packed int4": ({
            "w.weight_packed": ("I32", (size, words), codes), "w.weight_scale": ("BF16", (size, size // 64), scales.tobytes()),
            "w.weight_shape": ("I64", (2,), np.array([size, size]).tobytes()),
        }, {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4}}}}),
        "mxfp4": ({
            "w_blocks": ("U8", (1, size, size // 32, 16), codes),
            "w_scales": ("U8", (1, size, size // 32), b"\x78" * (n // 32)),
        }, {"quant_method": "mxfp4"}),
    }  # fmt: skip
    for what, (parts, config) in others.items():
        path = write(folder / f"{what}.safetensors", parts)
        name, rows = next((k, v) for k, v in streamconv.open(path, config).items() if k.startswith("w"))
        assert getattr(rows, "encoding", ""), name
        emit(what, n, best(lambda r=rows: r.read(0, size, out), 5))


def measure_way(folder: Path, size: int) -> None:
    """Rows to Q4_K as a worker does it, a chunk in tiles."""
    n = size * size
    words = np.resize(Pool(1).words, n)
    sources = {
        "bf16": write(folder / "bf16.safetensors", {"w.weight": ("BF16", (size, size), words.tobytes())}),
        "nf4 double": nf4(folder / "way.safetensors", size, "bfloat16", False),
    }
    scratch, out = np.empty(128 << 10, np.float32), np.empty((size, TYPES["Q4_K"].row_bytes(size)), np.uint8)
    items = {}
    for what, path in sources.items():
        rows = streamconv.open(path)["w.weight"]
        items[what] = EncodedRows("w", rows, [Encoding(rows, TYPES["Q4_K"])])
    found = dict.fromkeys(items, 1e9)
    for _ in range(4):  # in turn, so that a busy machine treats both alike
        for what, item in items.items():
            found[what] = min(found[what], best(lambda i=item: i.fill(0, size, [out], scratch), 1))
    for what, seconds in found.items():
        emit(f"{what} to Q4_K", n, seconds, ratio_to_bf16=round(seconds / found["bf16"], 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_decoding(Path(folder), a.size)
        measure_way(Path(folder), a.size)
    if a.peers:
        done = subprocess.run([a.peers / "bin" / "python", "-c", PEER, str(a.size)], capture_output=True, text=True)
        if done.returncode:
            print(
                json.dumps(
                    {"bench": "dequant", "what": "bitsandbytes", "skipped": done.stderr.strip().splitlines()[-1]}
                )
            )
        else:
            for dtype, seconds in json.loads(done.stdout).items():
                emit(f"bitsandbytes nf4 to {dtype}", a.size * a.size, seconds)


if __name__ == "__main__":
    main()
