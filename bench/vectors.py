"""Vectors of 256 and of 512 bits: every block format and its kernels compiled for both, in turns, nanoseconds per weight.

    vectors.py [--types Q4_K,Q6_K; default: all] [--imatrix] [--bf16] [--kernels]      one JSON line per type

``--kernels`` gives the share of each kernel that Python calls, which is what ``vector_bits`` of ``kernel`` is decided by.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from kernels import TYPES_SHOWN
from measure import place
from numba.core.caching import NullCache

from streamconv.kernels import lanes
from streamconv.quant.base import Codec
from streamconv.quant.types import TYPES

WIDTHS = (256, 512)
_FORMATS = "streamconv.quant.formats"
_COLS = 4096


class Timed:
    """A compiled kernel that adds up how long its calls took."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.function(*args)
        finally:
            self.seconds += time.perf_counter() - began


class Variant:
    """Modules of block formats of our own, all of whose kernels have vectors of ``bits``."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._modules: dict[str, ModuleType] = {}

    def codec(self, name: str) -> Codec:
        """The codec of type ``name``."""
        original, outside = (
            (lanes.kernel, lanes.inline),
            {k: v for k, v in sys.modules.items() if k.startswith(_FORMATS + ".")},
        )
        for key in outside:
            del sys.modules[key]
        sys.modules.update(self._modules)
        lanes.kernel, lanes.inline = (self._forced(decorator) for decorator in original)
        kept_on_disk = lanes.DiskCache
        if name.startswith(
            ("IQ1", "IQ2", "IQ3")
        ):  # their settings are a class of the module, of which there are two here
            lanes.DiskCache = lambda function, variant: NullCache()
        try:
            module = importlib.import_module(f"{_FORMATS}.{TYPES[name].module}")
        finally:
            lanes.kernel, lanes.inline = original
            lanes.DiskCache = kept_on_disk
            self._modules = {k: v for k, v in sys.modules.items() if k.startswith(_FORMATS + ".")}
            for key in self._modules:
                del sys.modules[key]
            sys.modules.update(outside)
        return module.CODECS[name] if hasattr(module, "CODECS") else module.CODEC

    def _forced(self, decorator: Any) -> Any:
        def forced(function: Any = None, **_: Any) -> Any:
            return forced if function is None else decorator(function, vector_bits=self._bits)

        return forced

    def time_kernels(self) -> dict[str, list[Timed]]:
        """Put stopwatches in the place of kernels that are compiled already; by their names."""
        found: dict[str, list[Timed]] = {}
        for module in self._modules.values():
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func") and value.signatures:
                    timed = Timed(value)
                    setattr(module, name, timed)
                    found.setdefault(value.py_func.__name__, []).append(timed)
                elif isinstance(value, Timed):
                    found.setdefault(value.function.py_func.__name__, []).append(value)
        return found


def best(work: list[Callable[[], object]], seconds: float) -> list[float]:
    """Seconds that each takes at best, in turns, for about ``seconds``."""
    found = [1e9] * len(work)
    start, rounds = time.perf_counter(), 0
    while rounds < 8 or time.perf_counter() - start < seconds:
        rounds += 1
        for i, f in enumerate(work):
            for _ in range(3):
                began = time.perf_counter()
                f()
                found[i] = min(found[i], time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", default=",".join(TYPES_SHOWN))
    parser.add_argument("--imatrix", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.5)
    a = parser.parse_args()
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((16, _COLS)) * 0.02).astype(np.float32)
    words = (x.view(np.uint32) >> 16).astype(np.uint16)
    words.flags.writeable = False
    weights = rng.random(_COLS, dtype=np.float32) + np.float32(0.1) if a.imatrix else None
    for name in a.types.split(","):
        variants = [Variant(bits) for bits in WIDTHS]
        codecs = [v.codec(name) for v in variants]
        if (codecs[0].needs_weights and weights is None) or (a.bf16 and codecs[0].quantize_bf16 is None):
            continue
        outs = [np.empty((len(x), TYPES[name].row_bytes(_COLS)), np.uint8) for _ in codecs]

        def call(c: Codec, out: np.ndarray) -> object:
            return c.quantize_bf16(words, out) if a.bf16 else c.quantize(x, out, weights, True)

        work = [lambda c=c, out=out: call(c, out) for c, out in zip(codecs, outs, strict=True)]
        for f in work:
            f()
        record: dict[str, Any] = {"bench": "vectors", **place(), "type": name, "imatrix": a.imatrix, "bf16": a.bf16}
        narrow, wide = (s / x.size * 1e9 for s in best(work, a.seconds))
        record |= {"ns_256": round(narrow, 3), "ns_512": round(wide, 3), "ratio": round(narrow / wide, 2)}
        record["same_bytes"] = bool((outs[0] == outs[1]).all())
        if a.kernels:
            timed = [v.time_kernels() for v in variants]
            least: dict[str, list[float]] = {k: [1e9, 1e9] for k in timed[0]}
            for _ in range(30):
                for i, f in enumerate(work):
                    for watches in timed[i].values():
                        for w in watches:
                            w.seconds = 0.0
                    f()
                    for k, watches in timed[i].items():
                        least[k][i] = min(least[k][i], max(w.seconds for w in watches))
            record["kernels"] = {
                k: [round(s / x.size * 1e9, 3) for s in v] for k, v in least.items() if min(v) > 0
            }  # fmt: skip
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
