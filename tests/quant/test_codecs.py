"""Block formats: bytes equal to ggml's, decoded values equal to ggml's, clear errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES

import streamconv
from streamconv.errors import BadInput, UsageError
from streamconv.quant.base import codec, has_codec
from streamconv.quant.types import _TABLE, TYPES

ROOT = Path(__file__).resolve().parents[2]
MADE = [t for t in TYPES if has_codec(t)]
QUANTIZED = [t for t in MADE if TYPES[t].block_size > 1]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(ROOT / "tests" / "data" / "quants" / "golden.npz") as file:
        return dict(file)


def test_the_table_knows_every_codec_once_and_the_sizes_that_ggml_does() -> None:
    assert len({t.id for t in _TABLE}) == len({t.name for t in _TABLE}) == len(_TABLE)
    for name, (block_size, block_bytes) in ((t.name, sizes) for t, sizes in GGML_QUANT_SIZES.items()):
        if name in TYPES:
            assert (TYPES[name].block_size, TYPES[name].block_bytes) == (block_size, block_bytes), name
    package = ROOT / "streamconv" / "quant" / "formats"
    ends_in_a_codec = {
        p.stem for p in package.glob("*.py") if re.search(r"^CODECS? ?[:=]", p.read_text(), re.MULTILINE)
    }
    assert {t.module for t in _TABLE} - {""} == ends_in_a_codec
    for name in MADE:
        assert codec(name).type is TYPES[name]


@pytest.mark.parametrize("kind", ["plain", "imat"])
@pytest.mark.parametrize("rows", ["mixed", "edge"])
@pytest.mark.parametrize("name", MADE)
def test_bytes_equal_those_of_ggml(golden: dict[str, np.ndarray], name: str, rows: str, kind: str) -> None:
    expected = golden.get(f"{rows}.{name}.{kind}")
    if expected is None:
        pytest.skip("no small copy of this case")
    weights = golden[f"{rows}.imatrix"] if kind == "imat" else None
    got = streamconv.quantize(golden[f"{rows}.x"], name, imatrix=weights, compat=True)
    size = TYPES[name].block_bytes
    same = (got.reshape(-1, size) == expected.reshape(-1, size)).all(axis=1)
    assert same.all(), f"{(~same).sum()} of {len(same)} blocks differ, first {np.flatnonzero(~same)[:5]}"


@pytest.mark.parametrize("name", [pytest.param(t, marks=pytest.mark.slow) if t.startswith("IQ") else t for t in MADE])
def test_the_whole_reference_set_holds(reference: Path, name: str) -> None:
    root = reference / "golden" / "quants"
    manifest = json.loads((root / "manifest.json").read_text())
    cases = 0
    for rows in ("mixed", "edge", "stress"):
        x, importance = np.load(root / "inputs" / f"{rows}.npy"), np.load(root / "inputs" / f"{rows}.imatrix.npy")
        for kind in ("plain", "imat"):
            path = root / "blocks" / rows / f"{name}.{kind}.npy"
            if not path.exists():
                continue
            dead = manifest["sets"][rows]["results"].get(f"{name}.{kind}", {}).get("reference_aborts_on_rows", [])
            keep = [r for r in range(len(x)) if r not in set(dead)]
            expected = np.load(path)
            got = streamconv.quantize(x[keep], name, imatrix=importance if kind == "imat" else None, compat=True)
            assert (got == expected[keep]).all(), f"{rows} {kind}"
            decoded = root / "floats" / rows / f"{name}.{kind}.npy"
            if decoded.exists():
                want = np.load(decoded)
                values = streamconv.dequantize(expected, name, x.shape[1])
                assert ((values == want) | (np.isnan(values) & np.isnan(want))).all(), f"{rows} {kind} decoded"
            cases += 1
    if not cases:
        pytest.skip("a plain copy, not in the set")


@pytest.mark.parametrize("name", MADE)
def test_neither_threads_nor_tiles_change_a_byte(name: str) -> None:
    x = np.random.default_rng(3).standard_normal((37, 4096)).astype(np.float32)
    weights = np.random.default_rng(4).random(4096, dtype=np.float32) + np.float32(0.1)
    whole = np.empty((37, TYPES[name].row_bytes(4096)), np.uint8)
    codec(name).quantize(x, whole, weights, False)
    for threads in (1, 2, 5):
        assert (streamconv.quantize(x, name.lower(), imatrix=weights, threads=threads) == whole).all()
    assert (streamconv.quantize(x[5:6], name, imatrix=weights) == whole[5:6]).all()


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("Q8_0", 0.006), ("Q6_K", 0.02), ("Q5_K", 0.04), ("Q5_1", 0.05), ("Q5_0", 0.05), ("Q4_K", 0.08), ("Q4_1", 0.09),
        ("Q4_0", 0.1), ("MXFP4", 0.13), ("NVFP4", 0.11),
    ],
)  # fmt: skip
def test_decoding_comes_back_near_the_values(name: str, bound: float) -> None:
    x = np.random.default_rng(1).standard_normal((8, 1024)).astype(np.float32)
    y = streamconv.dequantize(streamconv.quantize(x, name), name, 1024)
    assert np.sqrt(np.mean((x - y) ** 2)) < bound


def test_q8_0_rounds_halves_away_from_zero_and_what_is_just_below_a_half_towards_it() -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, :8] = 127, 0.5, -0.5, 2.5, -2.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.25, -126.5
    levels = streamconv.quantize(x, "Q8_0")[0, 2:].view(np.int8)  # the scale is 1
    assert levels[:8].tolist() == [127, 1, -1, 3, -3, 0, 0, -127]


@pytest.mark.parametrize(("name", "size"), [("Q4_0", 18), ("Q5_0", 22), ("Q4_1", 20), ("Q5_1", 24)])
def test_a_block_of_zeros_stays_zero_beside_weights_whose_squares_overflow(name: str, size: int) -> None:
    x = np.zeros((1, 64), np.float32)
    x[0, 32:] = 1e30
    assert not streamconv.quantize(x, name, imatrix=np.ones(64), compat=True)[0, :size].any()


@pytest.mark.parametrize("name", ["Q4_1", "Q5_1"])
def test_a_range_beyond_float32_gives_the_infinite_scale_that_it_gives_in_ggml(name: str) -> None:
    x = np.linspace(-3e38, 3e38, 32, dtype=np.float32)[None]
    data = streamconv.quantize(x, name, imatrix=np.ones(32), compat=True)[0]
    assert data[:4].view(np.float16).tolist() == [np.inf, -np.inf]
    assert not data[4:].any()


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0"])
def test_the_first_of_equal_magnitudes_decides_and_zeros_of_either_sign_count_as_none(name: str) -> None:
    x = np.zeros((5, 32), np.float32)
    x[1] = -0.0
    x[2, 5::2] = -0.0
    x[3, 7:9] = 1, -1
    x[4, 7:9] = -1, 1
    words = (x.view(np.uint32) >> 16).astype(np.uint16)
    direct = np.empty((5, TYPES[name].block_bytes), np.uint8)
    codec(name).quantize_bf16(words, direct)  # type: ignore[misc]
    blocks = streamconv.quantize(x, name)
    assert (blocks == direct).all()
    step = 1 / 8 if name == "Q4_0" else 1 / 16
    assert blocks[:, :2].copy().view(np.uint16)[:3, 0].tolist() == [0x8000] * 3
    assert blocks[:, :2].copy().view(np.float16)[3:, 0].tolist() == [-step, step]


@pytest.mark.parametrize("name", QUANTIZED)
def test_rows_of_zeros_decode_to_zeros(name: str) -> None:
    weights = np.ones(512, np.float32)
    y = streamconv.dequantize(streamconv.quantize(np.zeros((2, 512)), name, imatrix=weights), name, 512)
    # 1- and 2-bit types without a zero level come back as tiny or zero multiples of a zero scale
    assert np.abs(y).max() == 0


def test_unknown_types_and_misfits_are_refused_with_what_would_fit() -> None:
    x = np.ones((2, 64), np.float32)
    with pytest.raises(UsageError, match="Q9_X"):
        streamconv.quantize(x, "Q9_X")
    with pytest.raises(UsageError, match="64 columns are not a multiple of 256"):
        streamconv.quantize(x, "Q4_K")
    with pytest.raises(UsageError, match="3 values for 64 columns"):
        streamconv.quantize(x, "Q4_0", imatrix=np.ones(3))
    with pytest.raises(UsageError, match="takes a matrix"):
        streamconv.quantize(x[0], "Q4_0")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    x = np.ones((3, 64), np.float32)
    x[1, 33] = bad
    with pytest.raises(BadInput, match="row 1, column 33"):
        streamconv.quantize(x, "Q8_0")


UNCOMPILED = """
import numpy as np, streamconv, sys
golden = np.load(sys.argv[1])
for name in ("Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "F16", "BF16"):
    x, expected = golden["mixed.x"][1:2, :256], golden[f"mixed.{name}.plain"][1:2]
    with np.errstate(all="ignore"):
        got = streamconv.quantize(x, name, compat=True, threads=1)
        streamconv.dequantize(got, name, 256)
    assert (got == expected[:, : got.shape[1]]).all(), name
golden = np.load(sys.argv[2])
for name in ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "MXFP4", "NVFP4"):
    x, expected = golden["mixed.x"][1:2, :256], golden[f"mixed.{name}"][1:2]
    with np.errstate(all="ignore"):
        got = streamconv.quantize(x, name, compat=True, threads=1)
        streamconv.dequantize(got, name, 256)
    assert (got == expected[:, : got.shape[1]]).all(), name
"""


def test_kernels_give_the_same_bytes_without_compilation(data: Path) -> None:
    files = [str(data / "quants" / name) for name in ("golden.npz", "golden-small.npz")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNCOMPILED, *files],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
