"""One layer at the shapes of published models against plain products of the same shapes, in turns: GFLOP/s and their ratio.

forward.py [--shapes 8B,70B,moe] [--chunks 4] [--threads 2] [--ram BYTES]      one JSON line per shape
Weights are random bytes in a file. The plain products have float32 weights in memory and the same threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measure import place

from streamconv import forward
from streamconv.forward.matmul import panel_rows
from streamconv.limits import one_thread_of_blas
from streamconv.metadata import Metadata
from streamconv.rows import Rows
from streamconv.sources.mapped import MappedFile
from streamconv.sources.stored import StoredRows
from streamconv.threads import spread

#: width, heads, heads of keys, size of a head, inner width, experts, those used
SHAPES = {
    "8B": (4096, 32, 8, 128, 14336, 0, 0),
    "70B": (8192, 64, 8, 128, 28672, 0, 0),
    "moe": (2048, 32, 4, 128, 768, 64, 8),
}
N_CTX, N_VOCAB = 512, 512


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Matrices of a layer."""
    d, heads, kv, size, inner, experts, _ = SHAPES[name]
    attention = {
        "attn_q": (heads * size, d),
        "attn_k": (kv * size, d),
        "attn_v": (kv * size, d),
        "attn_output": (d, heads * size),
    }
    if not experts:
        return {**attention, "ffn_gate": (inner, d), "ffn_up": (inner, d), "ffn_down": (d, inner)}
    stacks = {
        "ffn_gate_exps": (experts, inner, d),
        "ffn_up_exps": (experts, inner, d),
        "ffn_down_exps": (experts, d, inner),
    }
    return {**attention, "ffn_gate_inp": (experts, d), **stacks}


def model_of(name: str, path: Path) -> forward.Model:
    """A model of one layer over the random file ``path``."""
    d, heads, kv, size, inner, experts, used = SHAPES[name]
    tensors = {f"blk.0.{n}.weight": s for n, s in shapes_of(name).items()}
    tensors |= {
        "token_embd.weight": (N_VOCAB, d),
        "blk.0.attn_norm.weight": (d,),
        "blk.0.ffn_norm.weight": (d,),
        "output_norm.weight": (d,),
    }
    file, at, rows = MappedFile(path), 0, dict[str, Rows]()
    for n, shape in tensors.items():
        rows[n] = StoredRows(file, at, n, shape, "BF16")
        at += 2 * int(np.prod(shape))
    arch, m = "qwen3moe" if experts else "llama", Metadata()
    m.string("general.architecture", arch)
    counts = {"block_count": 1, "embedding_length": d, "attention.head_count": heads, "attention.head_count_kv": kv}
    counts |= {
        "attention.key_length": size,
        "attention.value_length": size,
        "context_length": N_CTX,
        "feed_forward_length": inner,
    }
    for key, value in {**counts, **({"expert_count": experts, "expert_used_count": used} if experts else {})}.items():
        m.u32(f"{arch}.{key}", value)
    m.f32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    return forward.open_model(rows, m)


def write_random(path: Path, n_weights: int) -> None:
    """bfloat16 numbers around 0, of deviation 0.02."""
    rng = np.random.default_rng(0)
    with path.open("wb") as f:
        for start in range(0, n_weights, 1 << 22):
            x = rng.standard_normal(min(1 << 22, n_weights - start), np.float32) * np.float32(0.02)
            f.write((x.view(np.uint32) >> 16).astype("<u2").tobytes())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all threads' processor time: others may have the processors, too."""
    began, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - before


def plain(name: str, n_chunks: int, threads: int) -> None:
    """The same products with float32 weights that are there: every block with every panel."""
    used = SHAPES[name][6]
    panels = []
    for n, shape in shapes_of(name).items():
        n_rows, n_cols = int(np.prod(shape[:-1])), shape[-1]
        share = used / SHAPES[name][5] if n.endswith("_exps") else 1.0
        panels.append((n_cols, n_rows * share))
    rng = np.random.default_rng(0)
    inputs = {c: rng.standard_normal((N_CTX, c), np.float32) for c, _ in panels}
    weights = {c: rng.standard_normal((panel_rows(c), c), np.float32) for c, _ in panels}

    def work(_: int) -> None:
        for n_cols, n_rows in panels:
            left, step = n_rows, panel_rows(n_cols)
            while left > 0:
                n = int(min(step, left))
                np.matmul(inputs[n_cols], weights[n_cols][:n].T)
                left -= step

    with one_thread_of_blas():
        spread(work, range(n_chunks), threads)


def measured(name: str, args: argparse.Namespace, folder: Path) -> Mapping[str, Any]:
    """The best of both in turns."""
    d, used = SHAPES[name][0], SHAPES[name][6]
    path = folder / "weights"
    write_random(path, sum(int(np.prod(s)) for s in shapes_of(name).values()) + (N_VOCAB + 3) * d)
    model = model_of(name, path)
    tokens = np.random.default_rng(1).integers(0, N_VOCAB, (args.chunks, N_CTX)).astype(np.int32)
    hidden = forward.embed(model, tokens)
    hidden *= np.float32(50)
    out = np.empty_like(hidden)
    weights = sum(int(np.prod(s)) * (used / s[0] if len(s) == 3 else 1) for s in shapes_of(name).values())
    products = 2 * weights * args.chunks * N_CTX
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(timed(lambda: forward.run_layer(model, 0, tokens, hidden, out, threads=args.threads, ram=args.ram)))
        theirs.append(timed(lambda: plain(name, args.chunks, args.threads)))
    (wall, cpu), (plain_wall, plain_cpu) = (tuple(map(min, zip(*found, strict=True))) for found in (ours, theirs))
    return {
        "bench": "forward", **place(), "shape": name, "chunks": args.chunks, "threads": args.threads, "ram": args.ram,
        "layer_s": round(wall, 2), "gflops": round(products / wall / 1e9, 1), "sgemm_gflops": round(products / plain_wall / 1e9, 1),
        "ratio": round(plain_wall / wall, 3), "cpu_ratio": round(plain_cpu / cpu, 3),
    }  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", default=",".join(SHAPES))
    for name, usual in (("chunks", 4), ("threads", 2), ("rounds", 3), ("ram", 1 << 30)):
        p.add_argument(f"--{name}", type=int, default=usual)
    args = p.parse_args()
    for name in args.shapes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(name, args, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
