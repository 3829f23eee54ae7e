"""How fast this machine quantizes: the numbers of ``streamconv bench``, which are kept beside the kernels for estimates of time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ..kernels import cache
from ..rows import Bytes, Floats
from .base import Codec, codec
from .types import TYPES

#: the types of the usual mixes, which take seconds to compile and not minutes
USUAL = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS", "IQ4_NL", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4"]
#: types that importance weights change nothing of
_INDIFFERENT = {"Q8_0", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "F32", "F16", "BF16"}
#: a tile as the converter hands it on
_ROWS, _COLS = 16, 4096
_SECONDS, _CALLS = 0.1, 5


class Speed(NamedTuple):
    """What one type takes on one core.

    Attributes
    ----------
    type : its name
    plain_ns, weighted_ns : nanoseconds per weight at best, without and with importance weights; None where there is no such way
    """

    type: str
    plain_ns: float | None
    weighted_ns: float | None


def speeds(names: Iterable[str]) -> Iterator[Speed]:
    """Measure tensor types on one core; each first compiles what is not compiled yet, up to a minute.

    names : tensor types that have a codec
    """
    rng = np.random.default_rng(5)
    x = rng.standard_normal((_ROWS, _COLS), dtype=np.float32) * np.float32(0.02)
    importance = rng.random(_COLS, dtype=np.float32) + np.float32(0.1)
    for name in names:
        found, out = codec(name), np.empty((_ROWS, TYPES[name].row_bytes(_COLS)), np.uint8)

        def ns(weights: Floats | None, found: Codec = found, out: Bytes = out) -> float:
            return float(_best(lambda: found.quantize(x, out, weights, True)) / x.size * 1e9)

        yield Speed(name, None if found.needs_weights else ns(None), None if name in _INDIFFERENT else ns(importance))


def remember(found: Iterable[Speed]) -> None:
    """Keep what was measured on this processor for later processes, where there is a folder for that."""
    kept = {**measured(), **{each.type: each for each in found}}
    cache.save(*_name(), json.dumps([list(each) for each in kept.values()]).encode())


def measured() -> dict[str, Speed]:
    """What was kept of this processor, by tensor type."""
    content = cache.load(*_name())
    return {} if content is None else {each[0]: Speed(*each) for each in json.loads(content)}


def _name() -> tuple[str, str]:
    return cache.name_of("speeds", processor()), "nanoseconds per weight"


def _best(work: Callable[[], object]) -> float:
    """The shortest of several calls in seconds of this thread, so that others may have the processor during some of them."""
    work()
    found, start, calls = float("inf"), time.thread_time(), 0
    while calls < _CALLS or time.thread_time() - start < _SECONDS:
        began = time.thread_time()
        work()
        found, calls = min(found, time.thread_time() - began), calls + 1
    return found


def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_bits() -> int:
    """How wide the vectors of this machine's processor are."""
    from llvmlite import binding  # type: ignore[import-untyped]

    has = binding.get_host_cpu_features()
    return 512 if has.get("avx512vl") else 256 if has.get("avx2") or has.get("avx") else 128
