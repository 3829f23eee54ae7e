"""Slow, obvious twins of the legacy and K quantizers: one weight after the other, float32 scalars, lists.

``quantize(name, row, weights)`` returns the bytes of one row. Written from the description of ggml's reference (0.25.3), not from
our kernels: no lanes, no tiles, and candidates are stored instead of made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from iq_naive import F, clamp, f16, ni, qp, total
from numpy.typing import NDArray

Values = Sequence[np.float32]
Bytes = NDArray[np.uint8]
#: name -> (has a minimum, highest level)
LEGACY = {"Q4_0": (False, 15), "Q4_1": (True, 15), "Q5_0": (False, 31), "Q5_1": (True, 31)}


def back(half: bytes) -> np.float32:
    """The value that two bytes of a block stand for."""
    return F(np.frombuffer(half, np.float16)[0])


def symmetric(n_max: int, x: Values, w: Values) -> tuple[np.float32, list[int]]:
    """``make_qx_quants``: scale and levels of values of both signs, the levels counted from -n_max as 0."""
    peak = F(0)
    for v in x:
        if abs(v) > abs(peak):
            peak = v
    if abs(peak) < F(1e-15):
        return F(0), [0] * len(x)
    scale = best = F(0)
    found: list[int] = []
    for trial in (0, *range(-9, 0), *range(1, 10)):
        inverse = -(F(n_max) + F(0.1) * F(trial)) / peak
        levels = [clamp(ni(inverse * v), -n_max, n_max - 1) for v in x]
        lx = total(u * v * F(l) for u, v, l in zip(w, x, levels, strict=True))
        ll = total(u * F(l) * F(l) for u, l in zip(w, levels, strict=True))
        if trial == 0 or (ll > 0 and lx * lx > best * ll):
            scale = lx / ll if ll != 0 else F(0)
            best, found = scale * lx, levels
    return scale, [l + n_max for l in found]


def affine(
    n_max: int, x: Values, w: Values, first: float, step: float, n_steps: int, absolute: bool = False
) -> tuple[np.float32, np.float32, list[int]]:
    """``make_qkx2_quants`` and ``make_qkx3_quants``: scale, subtracted minimum and levels 0..n_max."""

    def error(scale: np.float32, low: np.float32, levels: list[int]) -> np.float32:
        off = [scale * F(l) + low - v for l, v in zip(levels, x, strict=True)]
        return total(u * (abs(d) if absolute else d * d) for u, d in zip(w, off, strict=True))

    low, high = F(min(x)), F(max(x))
    sum_w, sum_x = total(w), total(u * v for u, v in zip(w, x, strict=True))
    low = min(low, F(0))
    if high <= low:
        return F(0), -low, [0] * len(x)
    n = F(n_max)
    inverse = n / (high - low)
    scale = F(1) / inverse
    found = [clamp(ni(inverse * (v - low)), 0, n_max) for v in x]
    least = error(scale, low, found)
    for k in range(n_steps + 1):
        inverse = (F(first) + F(step) * F(k) + n) / (high - low)  # from the minimum of the best fit so far
        levels = [clamp(ni(inverse * (v - low)), 0, n_max) for v in x]
        sum_l = total(u * F(l) for u, l in zip(w, levels, strict=True))
        sum_ll = total(u * F(l) * F(l) for u, l in zip(w, levels, strict=True))
        sum_lx = total(u * F(l) * v for u, l, v in zip(w, levels, x, strict=True))
        determinant = sum_w * sum_ll - sum_l * sum_l
        if not determinant > 0:
            continue
        trial = (sum_w * sum_lx - sum_x * sum_l) / determinant
        bottom = (sum_ll * sum_x - sum_l * sum_lx) / determinant
        if bottom > 0:
            trial, bottom = sum_lx / sum_ll, F(0)
        wrong = error(trial, bottom, levels)
        if wrong < least:
            least, scale, low, found = wrong, trial, bottom, levels
    return scale, -low, found


def q8_0(x: Values) -> bytes:
    d = max(abs(v) for v in x) / F(127)
    inverse = F(1) / d if d else F(0)
    levels = [float(v * inverse) for v in x]
    away = [int(np.copysign(np.floor(abs(v) + 0.5), v)) for v in levels]
    return f16(d) + bytes(l & 255 for l in away)


def legacy(name: str, x: Values, q: Values | None, square: np.float32) -> bytes:
    """A block of 32; ``square`` is the mean of the row's squares."""
    has_minimum, n_max = LEGACY[name]
    half = (n_max + 1) // 2
    minimum = F(0)
    if q is not None:
        w = [u * np.sqrt(square + v * v) for u, v in zip(q, x, strict=True)]
        if has_minimum:
            d, minimum, levels = affine(n_max, x, w, -0.9, 0.05, 36)
            minimum = -minimum
        else:
            d, levels = symmetric(half, x, w)
    else:
        if has_minimum:
            minimum = F(min(x))
            d, shift = (F(max(x)) - minimum) / F(n_max), 0.5
        else:
            peak = F(0)
            for v in x:
                peak = v if abs(v) > abs(peak) else peak
            d, shift = peak / F(-half), half + 0.5
        inverse = F(1) / d if d else F(0)
        levels = [min(n_max, int((v - minimum) * inverse + F(shift))) for v in x]
    fifths = b""
    if n_max == 31:
        fifths = sum((l >> 4) << i for i, l in enumerate(levels)).to_bytes(4, "little")
    nibbles = bytes((a & 15) | (b & 15) << 4 for a, b in zip(levels[:16], levels[16:], strict=True))
    return f16(d) + (f16(minimum) if has_minimum else b"") + fifths + nibbles


def parts(values: Values, n: int) -> list[Values]:
    return [values[i : i + n] for i in range(0, len(values), n)]


def sixth_bits(s: list[int], m: list[int]) -> bytes:
    """Eight 6-bit scales and minima in twelve bytes."""
    first = [s[k] | (s[k + 4] >> 4) << 6 for k in range(4)] + [m[k] | (m[k + 4] >> 4) << 6 for k in range(4)]
    return bytes(b & 255 for b in first) + bytes((s[k + 4] & 15) | (m[k + 4] & 15) << 4 for k in range(4))


def q45_k(n_max: int, first: float, n_steps: int, x: Values, q: Values | None) -> bytes:
    found, sums = [], []
    square = F(2) * total(v * v for v in x) / F(256)
    for k, part in enumerate(parts(x, 32)):
        if q is None:
            mean = np.sqrt(total(v * v for v in part) / F(32))
            found.append(affine(n_max, part, [mean + abs(v) for v in part], first, 0.1, n_steps))
        else:
            w = [u * np.sqrt(square + v * v) for u, v in zip(q[32 * k : 32 * k + 32], part, strict=True)]
            sums.append(total(w))
            found.append(affine(n_max, part, w, -0.9, 0.05, 36))
    packed = []
    for values in ([f[0] for f in found], [f[1] for f in found]):
        if q is None:
            largest = max(F(0), *values)
            inverse = F(63) / largest if largest > 0 else F(0)
            packed.append((largest / F(63), [min(63, ni(inverse * v)) for v in values]))
        else:
            scale, levels = qp(63, values, sums)
            packed.append((scale, [min(63, l) for l in levels]))
    (d, s), (dmin, m) = packed
    head = f16(d) + f16(dmin)
    levels = []
    for part, step, bottom, (_, _, searched) in zip(parts(x, 32), s, m, found, strict=True):
        scale, low = back(head[:2]) * F(step), back(head[2:]) * F(bottom)
        levels += [clamp(ni((v + low) / scale), 0, n_max) for v in part] if scale else searched
    pairs = [(levels[64 * g + l], levels[64 * g + 32 + l]) for g in range(4) for l in range(32)]
    high = b""
    if n_max == 31:
        high = bytes(sum((levels[32 * k + l] >> 4) << k for k in range(8)) for l in range(32))
    return head + sixth_bits(s, m) + high + bytes((a & 15) | (b & 15) << 4 for a, b in pairs)


def q6_k(x: Values, q: Values | None) -> bytes:
    found = []
    for k, part in enumerate(parts(x, 16)):
        found.append(symmetric(32, part, [v * v for v in part] if q is None else q[16 * k : 16 * k + 16]))
    peak = F(0)
    for scale, _ in found:
        peak = scale if abs(scale) > abs(peak) else peak
    if abs(peak) < F(1e-15):
        return bytes(210)
    inverse = F(-128) / peak
    d = f16(F(1) / inverse)
    scales = [min(127, ni(inverse * scale)) for scale, _ in found]
    levels = []
    for part, step, (_, searched) in zip(parts(x, 16), scales, found, strict=True):
        scale = back(d) * F(np.uint8(step & 255).view(np.int8))
        levels += [clamp(ni(v / scale), -32, 31) + 32 for v in part] if scale else searched
    low, high = [], []
    for half in parts(levels, 128):
        low += [(half[l] & 15) | (half[64 + l] & 15) << 4 for l in range(64)]
        high += [sum((half[32 * k + l] >> 4) << 2 * k for k in range(4)) for l in range(32)]
    return bytes(low) + bytes(high) + bytes(s & 255 for s in scales) + d


def q2_k(x: Values) -> bytes:
    """Without importance."""
    found = [affine(3, part, [abs(v) for v in part], -0.5, 0.1, 15, absolute=True) for part in parts(x, 16)]
    packed = []
    for values in ([f[0] for f in found], [f[1] for f in found]):
        largest = max(F(0), *values)
        inverse = F(15) / largest if largest > 0 else F(0)
        packed.append((f16(largest / F(15)), [ni(inverse * v) for v in values]))
    (d, s), (dmin, m) = packed
    levels = []
    for part, step, bottom, (_, _, searched) in zip(parts(x, 16), s, m, found, strict=True):
        scale, low = back(d) * F(step), back(dmin) * F(bottom)
        levels += [clamp(ni((v + low) / scale), 0, 3) for v in part] if scale else searched
    four = [sum(levels[128 * h + 32 * k + l] << 2 * k for k in range(4)) for h in range(2) for l in range(32)]
    return bytes(a | b << 4 for a, b in zip(s, m, strict=True)) + bytes(four) + d + dmin


BLOCKS: dict[str, Callable[[Values, Values | None], bytes]] = {
    "Q2_K": lambda x, q: q2_k(x),
    "Q4_K": lambda x, q: q45_k(15, -1.0, 20, x, q),
    "Q5_K": lambda x, q: q45_k(31, -0.5, 15, x, q),
    "Q6_K": q6_k,
}


def quantize(name: str, row: NDArray[np.float32], weights: NDArray[np.float32] | None = None) -> Bytes:
    """The blocks of ``row`` float32[n_cols], with ``weights`` float32[n_cols] or without."""
    size = 256 if name in BLOCKS else 32
    out = b""
    with np.errstate(all="ignore"):
        square = total(F(v) * F(v) for v in row) / F(len(row))
        for start in range(0, len(row), size):
            x = [F(v) for v in row[start : start + size]]
            q = None if weights is None else [F(v) for v in weights[start : start + size]]
            if name in BLOCKS:
                out += BLOCKS[name](x, q)
            else:
                out += q8_0(x) if name == "Q8_0" else legacy(name, x, q, square)
    return np.frombuffer(out, np.uint8)
