"""Reading rows: any range, any output stride, every number type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from container_files import write_safetensors
from hypothesis import given
from hypothesis import strategies as st

from streamconv.errors import BadInput
from streamconv.rows import Rows
from streamconv.sources import open_checkpoint
from streamconv.sources.widen import STORED_TYPES, widen

RNG = np.random.default_rng(1)
WORDS = {
    "F64": RNG.standard_normal((7, 5)) * 1e10,
    "F32": RNG.standard_normal((7, 5)).astype("<f4"),
    "F16": RNG.integers(0, 65536, (7, 5), dtype="<u2"),
    "BF16": RNG.integers(0, 65536, (7, 5), dtype="<u2"),
    **{
        f"I{bits}": RNG.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, (7, 5), dtype=f"<i{bits // 8}")
        for bits in (8, 16, 32, 64)
    },
    **{f"U{bits}": RNG.integers(0, 2**bits - 1, (7, 5), dtype=f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": RNG.integers(0, 2, (7, 5), dtype="u1"),
    **{name: RNG.integers(0, 256, (7, 5), dtype="u1") for name in STORED_TYPES if name.startswith("F8")},
}


def expected(dtype: str, words: np.ndarray) -> np.ndarray:
    if dtype == "F16":
        return words.view("<f2").astype(np.float32)
    if dtype == "BF16":
        return (words.astype("<u4") << 16).view("<f4")
    if dtype.startswith("F8"):
        return np.array([[float8(dtype, int(code)) for code in row] for row in words], np.float32)
    return words.astype(np.float32)


def float8(dtype: str, code: int) -> float:
    """One 8-bit float, straight from the definitions."""
    if dtype == "F8_E8M0":
        return float("nan") if code == 255 else 2.0 ** (code - 127)
    mantissa_bits, bias = {"F8_E4M3": (3, 7), "F8_E5M2": (2, 15), "F8_E4M3FNUZ": (3, 8), "F8_E5M2FNUZ": (2, 16)}[dtype]
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code & 0x7F) >> mantissa_bits, code & (1 << mantissa_bits) - 1
    if dtype.endswith("FNUZ"):
        if code == 0x80:
            return float("nan")
    elif dtype == "F8_E4M3" and code & 0x7F == 0x7F:
        return float("nan")
    elif dtype == "F8_E5M2" and exponent == 31:
        return sign * float("inf") if mantissa == 0 else float("nan")
    fraction = mantissa / (1 << mantissa_bits)
    return sign * (2.0 ** (1 - bias) * fraction if exponent == 0 else 2.0 ** (exponent - bias) * (1 + fraction))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    nan = np.isnan(b)
    return bool((np.isnan(a) == nan).all() and (a.view(np.uint32)[~nan] == b.view(np.uint32)[~nan]).all())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Rows]]:
    # One byte in front of everything, so that all data are unaligned.
    path = tmp_path_factory.mktemp("rows") / "x.safetensors"
    tensors = {"!": ("U8", np.zeros(1, "u1")), **{name: (name, words) for name, words in WORDS.items()}}
    write_safetensors(path, tensors)
    return {io: dict(open_checkpoint(path, io).tensors) for io in ("mmap", "pread")}  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", WORDS)
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_every_type_widens_to_its_value(stored: dict[str, dict[str, Rows]], dtype: str, io: str) -> None:
    rows, want = stored[io][dtype], expected(dtype, WORDS[dtype])
    assert isinstance(rows, Rows)
    assert rows.dtype == dtype
    assert same_bits(rows.read(0, 7), want)
    strided = np.full((6, 5), 9, np.float32)
    assert rows.read(2, 5, strided[1::2]).base is not None
    assert same_bits(strided[1::2], want[2:5])
    assert (strided[::2] == 9).all()
    raw = rows.stored(2, 5)
    assert raw is not None
    assert raw.tobytes() == WORDS[dtype][2:5].tobytes()
    assert not raw.flags.writeable


def test_all_65536_halves_are_exact() -> None:
    codes = np.arange(65536, dtype="<u2")
    want = codes.view("<f2").astype(np.float32)
    finite = np.isfinite(want)
    for keep in (np.ones(65536, bool), finite):  # with and without infinities: two ways through the code
        out = np.empty((1, int(keep.sum())), np.float32)
        widen("F16", codes[keep].view(np.uint8)[None], out)
        assert same_bits(out[0], want[keep])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_float8_without_specials_takes_the_fast_way_to_the_same_values(dtype: str) -> None:
    codes = np.array([c for c in range(256) if np.isfinite(float8(dtype, c))], np.uint8)[None]
    out = np.empty(codes.shape, np.float32)
    widen(dtype, codes, out)
    assert same_bits(out, expected(dtype, codes))


@given(st.integers(0, 7), st.integers(0, 7), st.sampled_from(sorted(WORDS)))
def test_chunking_does_not_change_bits(stored: dict[str, dict[str, Rows]], a: int, b: int, dtype: str) -> None:
    rows = stored["mmap"][dtype]
    start, stop = sorted((a, b))
    whole = rows.read(0, 7)
    assert same_bits(rows.read(start, stop), whole[start:stop])


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, 8)])
def test_rows_out_of_range_are_a_mistake_of_the_caller(
    stored: dict[str, dict[str, Rows]], span: tuple[int, int]
) -> None:
    with pytest.raises(IndexError, match="of 7"):
        stored["mmap"]["F32"].read(*span)


def test_an_output_of_the_wrong_shape_is_a_mistake_of_the_caller(stored: dict[str, dict[str, Rows]]) -> None:
    with pytest.raises(ValueError, match="out has shape"):
        stored["mmap"]["F32"].read(0, 2, np.empty((2, 4), np.float32))


def test_a_type_without_float_form_moves_as_bytes_only(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"c": ("C64", np.array([[1j, 2]], "<c8"))})
    rows = open_checkpoint(path).tensors["c"]
    assert rows.stored(0, 1).tobytes() == np.array([1j, 2], "<c8").tobytes()  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="'c' is stored as C64"):
        rows.read(0, 1)


def test_doubles_beyond_the_range_become_infinite_without_a_warning(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w": ("F64", np.array([1e300, -1e300], "<f8"))})
    assert open_checkpoint(path).tensors["w"].read(0, 1).tolist() == [[np.inf, -np.inf]]
