"""Rows that no model has, quantized by real ggml: the same bytes, with and without importance.

On some rows, mostly those whose squares overflow, the types that search a grid end the process, hence a child does it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import streamconv
from streamconv.errors import BadInput
from streamconv.quant.types import TYPES
from streamconv.rows import Bytes, Floats

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

NAMES = [t.name for t in TYPES.values() if t.module and t.block_size > 1]
NEED_WEIGHTS = {"IQ1_S", "IQ2_XXS", "IQ2_XS"}
N_ROWS, N_COLS = 48, 768
MAX, LEAST = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
ODD = [0, -0.0, 1, -1, LEAST, -LEAST, 1e-15, -1e-30, 65504, 65520, 1e19, -1e30, MAX, -MAX]

Make = Callable[[np.random.Generator], np.ndarray]


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((N_ROWS, N_COLS))


def scaled(low: float, high: float) -> Make:
    """Noise, each row at a power of ten between."""
    return lambda rng: noise(rng) * 10.0 ** rng.uniform(low, high, (N_ROWS, 1))


ROWS: dict[str, Make] = {
    "any scale": scaled(-44, 37),
    "denormals": scaled(-45, -38),
    "near epsilon": scaled(-16, -14),
    "half precision ends": scaled(4, 8),
    "squares under- or overflow": scaled(16, 24),
    "ranges beyond float32": scaled(37, 38.5),
    "every weight at its own scale": lambda rng: noise(rng) * 10.0 ** rng.uniform(-45, 38, (N_ROWS, N_COLS)),
    "zero blocks between": lambda rng: (
        scaled(-20, 30)(rng) * np.repeat(rng.random((N_ROWS, N_COLS // 16)) < 0.5, 16, axis=1)
    ),
    "odd values": lambda rng: rng.choice(ODD, (N_ROWS, N_COLS)),
    "odd values in noise": lambda rng: np.where(
        rng.random((N_ROWS, N_COLS)) < 0.02, ODD[rng.integers(len(ODD))], noise(rng)
    ),
    "ties": lambda rng: rng.integers(-16, 17, (N_ROWS, N_COLS)) / 8,
    "equal magnitudes": lambda rng: np.sign(noise(rng)) * 10.0 ** rng.uniform(-9, 3, (N_ROWS, 1)),
    "one sign": lambda rng: -np.abs(noise(rng)),
    "nearly flat": lambda rng: 1 + noise(rng) * 1e-7,
    "next below powers of two": lambda rng: np.nextafter(np.float32(2) ** rng.integers(-60, 60, (N_ROWS, N_COLS)), 0),
}
IMPORTANCE: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "even": lambda rng: rng.random(N_COLS) + 0.1,
    "zeros": lambda rng: np.zeros(N_COLS),
    "many zeros": lambda rng: rng.random(N_COLS) * (rng.random(N_COLS) < 0.2),
    "far apart": lambda rng: 10.0 ** rng.uniform(-20, 20, N_COLS),
    "huge": lambda rng: rng.random(N_COLS) * 3e38,
    "denormal": lambda rng: rng.random(N_COLS) * 1e-40,
}


@pytest.fixture(scope="module")
def ggml(peers: Path) -> ctypes.CDLL:
    found = next(peers.parent.parent.glob("lib/python*/site-packages/llama_cpp/lib/libggml-base.so"))
    library = ctypes.CDLL(str(found))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library


def theirs(ggml: ctypes.CDLL, x: Floats, name: str, weights: Floats | None) -> Bytes | None:
    """What ggml makes of rows, None where it ends the process."""
    size = TYPES[name].row_bytes(N_COLS)
    importance = None if weights is None else weights.ctypes.data
    # grids are built once, here
    ggml.ggml_quantize_init(TYPES[name].id)
    with mmap.mmap(-1, max(len(x) * size, 1)) as shared:
        out = np.frombuffer(shared, np.uint8)[: len(x) * size].reshape(len(x), size)
        child = os.fork()
        if not child:
            os.environ["GGML_NO_BACKTRACE"] = "1"
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            ggml.ggml_quantize_chunk(TYPES[name].id, x.ctypes.data, out.ctypes.data, 0, len(x), N_COLS, importance)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        made = out.copy()
        del out
    return None if status else made


def ours(x: Floats, name: str, weights: Floats | None) -> tuple[Bytes, list[int]]:
    """Blocks of the rows that can be encoded, and the numbers of the others."""
    refused = []
    for row in range(len(x)):
        try:
            streamconv.quantize(x[row : row + 1], name, imatrix=weights, threads=1, compat=True)
        except BadInput:
            refused.append(row)
    kept = np.delete(x, refused, axis=0)
    return streamconv.quantize(kept, name, imatrix=weights, threads=1, compat=True), refused


@pytest.mark.parametrize("name", NAMES)
def test_awkward_rows_have_the_bytes_of_ggml_and_are_refused_where_it_ends(ggml: ctypes.CDLL, name: str) -> None:
    rng = np.random.default_rng(21)
    compared = 0
    for kind, make in ROWS.items():
        x = np.clip(make(rng), -MAX, MAX).astype(np.float32)
        for chosen, weigh in {"none": None, **IMPORTANCE}.items():
            weights = None if weigh is None else weigh(rng).astype(np.float32)
            if weights is None and name in NEED_WEIGHTS:
                continue
            got, refused = ours(x, name, weights)
            expected = theirs(ggml, np.delete(x, refused, axis=0), name, weights)
            assert expected is not None, f"{kind}, importance {chosen}: ggml ends on a row that we encode"
            different = (got != expected).any(axis=1)
            assert not different.any(), f"{kind}, importance {chosen}: rows {np.flatnonzero(different)[:5]}"
            for row in refused[:3]:
                assert theirs(ggml, x[row : row + 1], name, weights) is None, f"{kind}, {chosen}: row {row} is refused"
            compared += len(got)
    assert compared > 1000
