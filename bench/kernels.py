"""Block formats against ggml on one core: nanoseconds per weight, best of several.

kernels.py --peers ~/.cache/streamconv/peers [--types Q4_K,Q6_K; default: all] [--imatrix]      one JSON line per type
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import place

from streamconv.quant.base import codec
from streamconv.quant.types import TYPES

_ROUNDS, _CALLS, _SECONDS = 6, 4, 1.5
TYPES_SHOWN = [t.name for t in TYPES.values() if t.module and t.block_size > 1]


def best(*work: Callable[[], object]) -> list[float]:
    """Seconds of this thread that each takes at best, in turns: a shared processor changes its speed from one second to the next.

    Each turn is several calls, for the first finds caches and branch predictor as the other one left them.
    """
    found = [1e9] * len(work)
    for f in work:
        f()
    start = time.thread_time()
    rounds = 0
    while rounds < _ROUNDS or time.thread_time() - start < _SECONDS:
        rounds += 1
        for i, f in enumerate(work):
            for _ in range(_CALLS):
                began = time.thread_time()
                f()
                found[i] = min(found[i], time.thread_time() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--types", default=",".join(TYPES_SHOWN))
    parser.add_argument("--imatrix", action="store_true")
    a = parser.parse_args()
    library = next(a.peers.glob("lib/python*/site-packages/llama_cpp/lib/libggml-base.so"))
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = (
        [ctypes.c_int] + [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    )
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((16, 4096)) * 0.02).astype(np.float32)  # a tile, as the converter hands it on
    weights = rng.random(4096, dtype=np.float32) + np.float32(0.1) if a.imatrix else None
    for name in a.types.split(","):
        found = codec(name)
        if found.needs_weights and weights is None:
            continue
        out = np.empty((len(x), TYPES[name].row_bytes(4096)), np.uint8)
        theirs = np.empty_like(out)
        pointer = None if weights is None else weights.ctypes.data

        def reference(to: np.ndarray = theirs, id_: int = TYPES[name].id, w: int | None = pointer) -> None:
            ggml.ggml_quantize_chunk(id_, x.ctypes.data, to.ctypes.data, 0, len(x), 4096, w)

        seconds = best(lambda c=found, to=out: c.quantize(x, to, weights, True), reference)
        ours, peer = (s / x.size * 1e9 for s in seconds)
        record = {
            "bench": "kernel", **place(), "type": name, "imatrix": a.imatrix, "ours_ns": round(ours, 2),
            "ggml_ns": round(peer, 2), "ratio": round(peer / ours, 1), "same_bytes": bool((out == theirs).all()),
        }  # fmt: skip
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
