"""Q2_K and Q3_K: bytes equal to those of a loop-only twin of their searches where rows are awkward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import streamconv

F = np.float32
Array = NDArray[np.float32]
SUB, BLOCK = 16, 256


def nearest(v: np.float32) -> int:
    """The integer that the reference rounds to, by its own trick."""
    return int((F(v + F(12582912.0)).view(np.int32) & 0x7FFFFF) - 0x400000)


def moved_levels(x: Array) -> tuple[np.float32, list[int]]:
    """Scale and levels 0..7 of one sub-block of Q3_K without importance, one step after the other."""
    peak = max(x, key=abs)  # the first of equals
    if abs(peak) < F(1e-15):
        return F(0), [0] * SUB
    levels = [min(max(nearest(F(-4) / peak * v), -4), 3) for v in x]
    lx = ll = F(0)
    for v, l in zip(x, levels, strict=True):
        lx += v * v * v * F(l)
        ll += v * v * F(l) * F(l)
    for _ in range(5):
        changed = False
        for i, v in enumerate(x):
            w, l = v * v, F(levels[i])
            rest_lx, rest_ll = lx - w * v * l, ll - w * l * l
            if not rest_lx > 0:
                continue
            new = min(max(nearest(v * rest_ll / rest_lx), -4), 3)
            new_lx, new_ll = rest_lx + w * v * F(new), rest_ll + w * F(new) * F(new)
            if new != levels[i] and new_ll > 0 and new_lx * new_lx * ll > lx * lx * new_ll:
                levels[i], lx, ll, changed = new, new_lx, new_ll, True
        if not changed:
            break
    return (lx / ll if ll > 0 else F(0)), [l + 4 for l in levels]


def q3_k(x: Array) -> NDArray[np.uint8]:
    """One block of Q3_K without importance."""
    found = [moved_levels(x[k : k + SUB]) for k in range(0, BLOCK, SUB)]
    peak = max((s for s, _ in found), key=abs)
    inverse = F(-32) / peak if peak else F(0)
    # the reference keeps a byte of the rounded scale before it limits the range
    signed = [int(np.uint8(nearest(inverse * s) & 0xFF).view(np.int8)) for s, _ in found]
    scales = [min(max(s, -32), 31) + 32 if peak else 0 for s in signed]
    d = np.array([F(1) / inverse if peak else F(0)], F).astype(np.float16)
    out = np.zeros(110, np.uint8)
    out[108:110] = d.view(np.uint8)
    levels: list[int] = []
    for k, (_, searched) in enumerate(found):
        out[96 + k % 8] |= (scales[k] & 15) << 4 * (k // 8)
        out[104 + k % 4] |= (scales[k] >> 4) << 2 * (k // 4)
        step = F(d[0]) * F(scales[k] - 32)
        values = x[SUB * k : SUB * k + SUB]
        levels += [min(max(nearest(v / step), -4), 3) + 4 for v in values] if step else searched
    for i, l in enumerate(levels):
        out[i % 32] |= (l >> 2) << i // 32
        out[32 + 32 * (i // 128) + i % 32] |= (l & 3) << 2 * (i % 128 // 32)
    return out


def rows(kind: str) -> Array:
    """Eight blocks that are awkward in one way."""
    x = np.random.default_rng(7).standard_normal((8, BLOCK)).astype(F)
    x[1] = 0
    changes: dict[str, Callable[[], None]] = {
        "noise": lambda: None,
        "zero sub-blocks": lambda: np.copyto(x[:, 32:80], F(0)),
        "denormals": lambda: np.copyto(x, x * F(1e-42)),
        "near the epsilon": lambda: np.copyto(x, x * F(1e-15)),
        "huge": lambda: np.copyto(x, x * F(1e4)),
        "ties": lambda: np.copyto(x, np.round(x * 4) / 8),
        "one of many": lambda: np.copyto(x[:, 1:], x[:, 1:] * F(1e-6)),
        "equal magnitudes": lambda: np.copyto(x, np.sign(x)),
        "positive": lambda: np.copyto(x, np.abs(x)),
    }
    changes[kind]()
    return x


KINDS = ["noise", "zero sub-blocks", "denormals", "near the epsilon", "huge", "ties", "one of many", "equal magnitudes",
         "positive"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_q3_k_moves_levels_as_a_loop_over_single_weights_does(kind: str) -> None:
    x = rows(kind)
    with np.errstate(all="ignore"):
        expected = np.stack([q3_k(block) for block in x])
    got = streamconv.quantize(x, "Q3_K", threads=1)
    same = (got == expected).all(axis=1)
    assert same.all(), f"blocks {np.flatnonzero(~same)}"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "bound"), [("Q2_K", 0.45), ("Q3_K", 0.25)])
def test_decoded_blocks_are_near_whatever_the_rows(name: str, bound: float, kind: str, weighted: bool) -> None:
    x = rows(kind)
    weights = np.random.default_rng(8).random(BLOCK).astype(F) + F(0.5) if weighted else None
    y = streamconv.dequantize(streamconv.quantize(x, name, imatrix=weights, threads=1), name, BLOCK)
    # half precision holds the scale: what is below its least step is lost
    assert (np.abs(x - y).max(axis=1) <= bound * np.abs(x).max(axis=1) + 1e-6).all()


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K"])
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_do_not_depend_on_their_neighbours_in_a_tile(name: str, weighted: bool) -> None:
    x = np.concatenate([rows(kind) for kind in KINDS])[:67]
    weights = np.linspace(0, 2, BLOCK, dtype=F) if weighted else None
    together = streamconv.quantize(x, name, imatrix=weights, threads=1)
    for i in (0, 1, 17, 40, 66):
        assert (streamconv.quantize(x[i : i + 1], name, imatrix=weights, threads=1) == together[i]).all()


def test_levels_stand_where_readers_look_for_them() -> None:
    data = np.zeros((1, 84), np.uint8)
    data[0, 80:82] = np.array([1], np.float16).view(np.uint8)
    data[0, 9] = 3  # scale of the sub-block 9, weights 144 to 159
    data[0, 16 + 32 + 17] = 0b01_10_11_00  # of weights 145, 177, 209 and 241: levels 0, 3, 2, 1
    data[0, 16 + 32 + 16] = 0b10  # level 2 of the weight 144
    y = streamconv.dequantize(data, "Q2_K", BLOCK)
    assert y[0, 144] == 6
    assert np.flatnonzero(y).tolist() == [144]
    data = np.zeros((1, 110), np.uint8)
    data[0, 108:110] = np.array([1], np.float16).view(np.uint8)
    data[0, 96:108] = 0
    data[0, 104:108] = 0b10101010  # every scale is 0 …
    data[0, 97] = 0x50  # … but that of the sub-block 9, 5
    data[0, :32] = 0xFF  # third bits set: levels 0 and up
    data[0, 32 + 32 + 16] = 0b10
    y = streamconv.dequantize(data, "Q3_K", BLOCK)
    assert y[0, 144] == 10
    assert np.flatnonzero(y).tolist() == [144]
