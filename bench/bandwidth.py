"""How near to copying: bf16 rows in memory to each type on one core, in GB of rows read per second.

    bandwidth.py [--types Q8_0,Q4_0] [--mib 256] [--runs 5]      one JSON line per type

The rows take the converter's way, tile by tile: widened, looked at for NaN and Inf, encoded. Beside each figure stands
``np.copyto`` of the same rows, measured in turn with it so that both see the same machine; ``of_copy_of_same_traffic`` allows
for a copy writing more than an encoder does. Both go through all of the memory in pieces, so that nothing is in the cache
when its turn comes, and the best of several rounds counts for each piece, so that other programs disturb little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from measure import place

from streamconv.engine.budget import share
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.types import TYPES
from streamconv.rows import Rows

TYPES_SHOWN = "Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,TQ1_0,TQ2_0,Q2_0,Q1_0,MXFP4,NVFP4,Q4_K,Q6_K"
N_COLS = 8192
#: rows in a piece, 1 MiB of bf16
PIECE = 64


class WordRows(Rows):
    """bfloat16 rows in memory, handed out as a mapped checkpoint hands them out."""

    dtype = "BF16"

    def __init__(self, n_rows: int) -> None:
        noise = (np.random.default_rng(5).standard_normal((256, N_COLS)) * 0.02).astype(np.float32)
        self._words = np.empty((n_rows, N_COLS), np.uint16)
        for a in range(0, n_rows, 256):
            self._words[a : a + 256] = (noise.view(np.uint32) >> 16)[: n_rows - a]
        self._words.flags.writeable = False
        self.shape = self._words.shape
        self.n_bytes = self._words.nbytes

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        wide = self._words[start:stop].astype(np.uint32)
        wide <<= 16
        if out is None:
            return wide.view(np.float32)
        out[...] = wide.view(np.float32)
        return out

    def native(self, kind: str, start: int, stop: int) -> np.ndarray | None:
        return self._words[start:stop].view(np.uint8) if kind == self.dtype else None


class Stopwatch:
    """The sum over pieces of the best time each took."""

    def __init__(self, n_pieces: int) -> None:
        self._best = [1e9] * n_pieces

    def round(self, work: Callable[[int], object]) -> None:
        """Time ``work(piece)`` for every piece, one after the other."""
        for piece, best in enumerate(self._best):
            began = time.thread_time()
            work(piece)
            self._best[piece] = min(best, time.thread_time() - began)

    @property
    def seconds(self) -> float:
        return sum(self._best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", default=TYPES_SHOWN)
    parser.add_argument("--mib", type=int, default=256, help="bf16 rows to go through")
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    rows = WordRows((a.mib << 20) // (2 * N_COLS * PIECE) * PIECE)
    source = rows.stored(0, rows.shape[0]).reshape(-1)
    target = np.empty_like(source)
    for name in a.types.split(","):
        encoding = Encoding(rows, TYPES[name])
        encoding.warm_up()
        item = EncodedRows(name, rows, [encoding])
        scratch = np.empty(share(1 << 30, 1, N_COLS, encoding.row_bytes).scratch_floats, np.float32)
        out = target[: encoding.n_bytes].reshape(rows.shape[0], encoding.row_bytes)
        ours, copy = Stopwatch(rows.shape[0] // PIECE), Stopwatch(rows.shape[0] // PIECE)

        def encode(k: int, item: EncodedRows = item, out: np.ndarray = out, scratch: np.ndarray = scratch) -> None:
            item.fill(k * PIECE, (k + 1) * PIECE, [out[k * PIECE : (k + 1) * PIECE]], scratch)

        def duplicate(k: int) -> None:
            part = slice(k * PIECE * 2 * N_COLS, (k + 1) * PIECE * 2 * N_COLS)
            np.copyto(target[part], source[part])

        for _ in range(a.runs + 1):  # the first round touches the pages
            ours.round(encode)
            copy.round(duplicate)
        traffic = (rows.n_bytes + encoding.n_bytes) / (2 * rows.n_bytes)
        record = {
            "bench": "bandwidth", **place(), "type": name, "gb_per_s": round(rows.n_bytes / ours.seconds / 1e9, 2),
            "copy_gb_per_s": round(rows.n_bytes / copy.seconds / 1e9, 2), "of_copy": round(copy.seconds / ours.seconds, 2),
            "of_copy_of_same_traffic": round(copy.seconds * traffic / ours.seconds, 2),
            "ns_per_weight": round(2e9 * ours.seconds / rows.n_bytes, 2),
        }  # fmt: skip
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
