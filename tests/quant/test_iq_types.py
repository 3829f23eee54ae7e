"""The IQ types: the bytes of ggml and of a slow, obvious model, exact search on the grids, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import iq_naive
import numpy as np
import pytest
from numba import njit

import streamconv
from streamconv.errors import BadInput, UsageError
from streamconv.quant.filetypes import parse_file_type
from streamconv.quant.formats._grids import KEYS, grid_table
from streamconv.quant.formats._iq_nearest import nearest4, nearest8
from streamconv.quant.mix import assign_types
from streamconv.quant.mix_facts import MixOptions, ModelFacts, TensorFacts
from streamconv.quant.types import TYPES
from streamconv.rows import Bytes, Floats

GRIDS = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
ALL = [*GRIDS, "IQ4_NL", "IQ4_XS"]
#: no search works without importance weights
NEEDS = ["IQ1_S", "IQ2_XXS", "IQ2_XS"]
CASES = [(name, weighted) for name in ALL for weighted in ([True] if name in NEEDS else [False, True])]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    folder = Path(__file__).resolve().parents[1] / "data" / "quants"
    with np.load(folder / "golden.npz") as inputs, np.load(folder / "golden-iq.npz") as blocks:
        return {k: v for k, v in inputs.items() if k.endswith((".x", ".imatrix"))} | dict(blocks)


@pytest.mark.parametrize("rows", ["mixed", "edge"])
@pytest.mark.parametrize(("name", "weighted"), [c for c in CASES if c[0] in GRIDS])
def test_bytes_equal_those_of_ggml(golden: dict[str, np.ndarray], name: str, weighted: bool, rows: str) -> None:
    expected = golden[f"{rows}.{name}.{'imat' if weighted else 'plain'}"]
    weights = golden[f"{rows}.imatrix"] if weighted else None
    got = streamconv.quantize(golden[f"{rows}.x"], name, imatrix=weights, compat=True)
    size = TYPES[name].block_bytes
    same = (got.reshape(-1, size) == expected.reshape(-1, size)).all(axis=1)
    assert same.all(), f"{(~same).sum()} of {len(same)} blocks differ, first {np.flatnonzero(~same)[:5]}"


# -- the slow model ------------------------------------------------------------------------------------------------


def awkward_rows() -> tuple[Floats, Floats]:
    """Four blocks that take every branch, and importance: noise, ties, zeros inside and a span of magnitudes."""
    rng = np.random.default_rng(11)
    x = (rng.standard_normal((4, 256)) * 0.02).astype(np.float32)
    x[1] = rng.choice(np.array([-1, -0.5, -0.0, 0.25, 0.5, 1], np.float32), 256)
    x[2, 40:128] = 0
    x[3] *= np.float32(10) ** rng.integers(-12, 4, 256).astype(np.float32)
    x[3, 64:96] = np.abs(x[3, 64:96])
    weights = rng.standard_gamma(0.3, 256).astype(np.float32)
    weights[rng.random(256) < 0.1] = 0
    return x, weights


@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_bytes_equal_those_of_the_slow_model(name: str, weighted: bool) -> None:
    x, weights = awkward_rows()
    chosen = weights if weighted else None
    got = streamconv.quantize(x, name, imatrix=chosen, threads=1)
    for row, data in zip(x, got, strict=True):
        assert (data == iq_naive.quantize(name, row, chosen)).all()


@pytest.mark.parametrize("name", GRIDS)
def test_sums_that_underflow_leave_what_ggml_leaves(name: str) -> None:
    """All scales come out zero, but some formats keep points and signs that were found before."""
    x = np.random.default_rng(16).choice(np.array([-2, 0, 1, 2], np.float32), (1, 256)) * np.float32(1e-9)
    weights = (10.0 ** np.random.default_rng(17).uniform(-41, -32, 256)).astype(np.float32)
    got = streamconv.quantize(x, name, imatrix=weights, threads=1)
    assert (got[0] == iq_naive.quantize(name, x[0], weights)).all()


@pytest.mark.parametrize("scale", [1e-4, 0.02, 1])
@pytest.mark.parametrize("name", ["IQ1_S", "IQ1_M"])
def test_importance_whose_sums_overflow_leaves_what_ggml_leaves(name: str, scale: float) -> None:
    """A step that comes out as 0 since it is divided by infinity does not make a zero block: shifts stay."""
    rng = np.random.default_rng(19)
    x = (np.sign(rng.standard_normal((1, 256))) * scale).astype(np.float32)
    weights = (rng.random(256) * 3e38).astype(np.float32)
    got = streamconv.quantize(x, name, imatrix=weights, threads=1)
    with np.errstate(all="ignore"):
        assert (got[0] == iq_naive.quantize(name, x[0], weights)).all()


@pytest.mark.parametrize("name", ALL)
def test_any_bytes_decode_as_in_the_slow_model(name: str) -> None:
    data = np.random.default_rng(12).integers(0, 256, (6, TYPES[name].row_bytes(256)), np.uint8)
    got = streamconv.dequantize(data, name, 256)
    for row, values in zip(data, got, strict=True):
        expected = iq_naive.dequantize(name, row)
        assert (np.isnan(values) == np.isnan(expected)).all()
        assert (values.view(np.uint32) == expected.view(np.uint32))[~np.isnan(values)].all()


# -- the nearest point ---------------------------------------------------------------------------------------------


@njit
def nearest_of_four(grid, start, values, x, w, scale, offset, spacing):  # type: ignore[no-untyped-def]
    return nearest4(grid, start, values, x, w, scale, offset, spacing)


@njit
def nearest_of_eight(grid, start, values, x, w, scale, offset, spacing):  # type: ignore[no-untyped-def]
    return nearest8(grid, start, values, x, w, scale, offset, spacing)


#: grid -> offset and spacing of what its levels stand for
LINES = {"IQ2_XS": (1.0, 2.0), "IQ3_S": (1.0, 2.0), "IQ1_S": (-0.875, 1.0), "IQ1_M": (-1.125, 1.0)}


@pytest.mark.parametrize("name", LINES)
def test_the_nearest_point_is_found_exactly_and_the_first_of_equals(name: str) -> None:
    """Noise, values on a coarse lattice (many exact ties) and magnitudes that underflow or overflow when squared."""
    rng = np.random.default_rng(13)
    table, points = grid_table(name), np.array(iq_naive.points_of(name))
    dims, n_levels = points.shape[1], int(points.max()) + 1
    offset, spacing = (np.float32(v) for v in LINES[name])
    starts = table[KEYS : KEYS + n_levels**dims]
    off = np.flatnonzero(table[starts] % 2 == 0)
    nearest = nearest_of_four if dims == 4 else nearest_of_eight
    for k in range(240):
        key = int(rng.choice(off))
        levels = [key // n_levels**i % n_levels for i in range(dims)]
        unit = np.float32([1, 1, 2.0**-70, 2.0**70][k % 4])
        center = offset + spacing * np.array(levels, np.float32)
        blur = rng.choice([-0.5, 0, 0.5], dims) if k % 2 else rng.uniform(-0.5, 0.5, dims)
        values = np.concatenate([unit * (center + blur.astype(np.float32)), rng.choice([0.25, 1, 4], dims)])
        values = values.astype(np.float32)
        with np.errstate(all="ignore"):
            got = nearest(table, starts[key], values, 0, dims, unit, offset, spacing)
            try:
                x, w = values[:dims], values[dims:]
                want, _ = iq_naive.nearest_point(name, levels, x, w, unit, lambda r: offset + spacing * np.float32(r))
            except iq_naive.Abort:
                want = -1
        assert got == want, f"case {k}, key {key}"


# -- the reference's misplaced sub-blocks --------------------------------------------------------------------------


def error_of(data: Bytes, x: Floats) -> float:
    return float(np.linalg.norm(streamconv.dequantize(data, "IQ3_S", 256) - x) / np.linalg.norm(x))


def test_iq3_s_keeps_sub_blocks_in_place_and_misplaces_them_like_ggml_on_demand() -> None:
    x = (np.random.default_rng(14).standard_normal((1, 256)) * 0.02).astype(np.float32)
    x[0, 32:64] = 0
    right, reference = (streamconv.quantize(x, "IQ3_S", compat=compat) for compat in (False, True))
    assert (right[0] == iq_naive.quantize("IQ3_S", x[0], None, False)).all()
    assert (reference[0] == iq_naive.quantize("IQ3_S", x[0], None, True)).all()
    assert error_of(right, x) < 0.2
    assert error_of(reference, x) > 0.8


def test_iq3_s_is_the_same_either_way_unless_zeros_come_before_other_weights() -> None:
    x = (np.random.default_rng(15).standard_normal((2, 256)) * 0.02).astype(np.float32)
    x[1, 192:] = 0
    assert (streamconv.quantize(x, "IQ3_S") == streamconv.quantize(x, "IQ3_S", compat=True)).all()


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compat"), [(n, c) for n in GRIDS for c in (False, True) if (n, c) != ("IQ2_XXS", True)]
)
def test_weights_whose_squares_overflow_are_refused_with_their_row(name: str, compat: bool) -> None:
    """Also where defects are to be reproduced: ggml terminates there, but in IQ2_XXS it stores an infinite scale."""
    x = np.ones((3, 512), np.float32)
    x[1, 300:310] = np.linspace(1e30, 3e38, 10)
    with pytest.raises(BadInput, match=f"row 1 holds values too large for {name}"):
        streamconv.quantize(x, name, imatrix=np.ones(512, np.float32), threads=1, compat=compat)


@pytest.mark.parametrize("name", ["IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_a_sum_of_squares_that_overflows_only_when_doubled_is_refused_too(name: str) -> None:
    x = (np.random.default_rng(18).standard_normal((1, 256)) * 0.02).astype(np.float32)
    x[0, [3, 77, 200]] = 8e18
    weights = np.ones(256, np.float32)
    with pytest.raises(iq_naive.Abort):
        iq_naive.quantize(name, x[0], weights)
    with pytest.raises(BadInput, match=f"row 0 holds values too large for {name}"):
        streamconv.quantize(x, name, imatrix=weights, compat=True)


@pytest.mark.parametrize("name", ALL)
def test_types_are_refused_without_importance_where_no_search_works_without(name: str) -> None:
    x = np.ones((1, 256), np.float32)
    if name in NEEDS:
        with pytest.raises(UsageError, match=f"{name} needs importance weights"):
            streamconv.quantize(x, name)
    else:
        assert streamconv.quantize(x, name).shape == (1, TYPES[name].row_bytes(256))


@pytest.mark.parametrize("name", ALL)
def test_planning_demands_an_imatrix_where_llama_quantize_does(name: str) -> None:
    tensors = [TensorFacts(f"blk.0.{part}.weight", (8, 256), "BF16") for part in ("attn_q", "ffn_up")]
    options = MixOptions(tensor_types=(("attn_q", TYPES[name]),))

    def types(covered: set[str] | None) -> dict[str, str]:
        choices = assign_types(tensors, ModelFacts("llama", 1), parse_file_type("Q4_K_S"), options, covered)
        return {c.name: c.type.name for c in choices}

    if name in ("IQ3_S", "IQ4_NL", "IQ4_XS"):
        assert types(None)["blk.0.attn_q.weight"] == name
        return
    with pytest.raises(UsageError, match=rf"needs an importance matrix: blk\.0\.attn_q\.weight becomes {name}") as e:
        types(None)
    assert "llama-imatrix -m MODEL.gguf -f calibration.txt -o imatrix.gguf" in e.value.hint
    with pytest.raises(UsageError, match=rf"no entry for blk\.0\.attn_q\.weight, which {name} needs"):
        types({"blk.0.ffn_up.weight"})
    assert types({"blk.0.attn_q.weight"})["blk.0.attn_q.weight"] == name
