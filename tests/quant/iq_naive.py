"""Slow, obvious twins of the IQ kernels: one weight after the other, float32 scalars, lists, no tables but the grid.

``quantize(name, row, weights, compat)`` returns the bytes of one row, ``dequantize(name, data)`` its values.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

from streamconv.quant.formats._grids import grid_values

F = np.float32
VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
#: how many distinct distances count as near
NEAR = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ1_S": 3, "IQ1_M": 3, "IQ3_XXS": 2, "IQ3_S": 3}
#: name -> (sub-block, dimensions of the grid, levels, candidates on each side, step, zero test)
SEARCH = {
    "IQ2_XS": (16, 8, 3, 9, 0.1, 1e-15),
    "IQ2_S": (16, 8, 3, 9, 0.1, 1e-8),
    "IQ3_XXS": (32, 4, 8, 15, 0.2, 1e-8),
    "IQ3_S": (32, 4, 8, 9, 0.2, 0.0),
}
ODD_PARITY = {s for s in range(128) if bin(s).count("1") % 2}


class Abort(Exception):
    """The reference terminates the process here."""


def ni(v):
    return (int((F(v) + F(12582912.0)).view(np.int32)) & 0x7FFFFF) - 0x400000


def clamp(v, low, high):
    return max(low, min(high, v))


def f16(v):
    return F(v).astype(np.float16).tobytes()


def total(values):
    s = F(0)
    for v in values:
        s = s + v
    return s


def quantize(name, row, weights=None, compat=False):
    size = 32 if name == "IQ4_NL" else 256
    out = b""
    with np.errstate(all="ignore"):
        for start in range(0, len(row), size):
            x = [F(v) for v in row[start : start + size]]
            q = None if weights is None else [F(v) for v in weights[start : start + size]]
            w = importance(name, x, q)
            if name == "IQ3_S":
                out += iq3_s(x, w, compat)
            else:
                out += BLOCKS[name](x, w)
    return np.frombuffer(out, np.uint8)


def importance(name, x, q):
    squares = total(v * v for v in x)
    if name in ("IQ4_NL", "IQ4_XS"):
        sigma2 = squares * F(2) / F(len(x))
    elif name in ("IQ2_XXS", "IQ2_XS"):
        sigma2 = squares / F(256)
    else:
        sigma2 = F(2) * squares / F(256)
    if q is not None:
        return [a * np.sqrt(sigma2 + v * v) for a, v in zip(q, x, strict=True)]
    if name == "IQ2_S":
        return [F(0.25) * sigma2 + v * v for v in x]
    return [v * v for v in x]


# -- IQ4 -----------------------------------------------------------------------------------------------------------


def nearest4(y):
    return sum(not (y < F((VALUES[k] + VALUES[k + 1]) / 2)) for k in range(15))


def scale4(x, w):
    mx = F(0)
    for v in x:
        if abs(v) > abs(mx):
            mx = v
    if abs(mx) < F(1e-15):
        return F(0)
    d = best = F(0)
    for t in range(-8, 8):
        ident = F(1) / (-mx / F(-127)) if t == -8 else F(t - 127) / mx
        a = b = F(0)
        for v, u in zip(x, w, strict=True):
            q = F(VALUES[nearest4(ident * v)])
            a = a + u * q * v
            b = b + u * q * q
        if t == -8:
            d = a / b if b > 0 else F(0)
            best = d * a
        elif b > 0 and a * a > best * b:
            d = a / b
            best = d * a
    return d


def nibbles(codes):
    return bytes(codes[j] | codes[j + 16] << 4 for j in range(16))


def inverse(v):
    return F(1) / v if v != 0 else F(0)


def iq4_nl(x, w):
    d = scale4(x, w)
    return f16(d) + nibbles([nearest4(inverse(d) * v) for v in x])


def iq4_xs(x, w):
    scales = [scale4(x[s : s + 32], w[s : s + 32]) for s in range(0, 256, 32)]
    widest = F(0)
    for s in scales:
        if abs(s) > abs(widest):
            widest = s
    d = -widest / F(32)
    low, high, qs = [0] * 4, 0, b""
    for ib, s in enumerate(scales):
        level = clamp(ni(inverse(d) * s), -32, 31)
        ident = inverse(d * F(level))
        qs += nibbles([nearest4(ident * v) for v in x[32 * ib : 32 * ib + 32]])
        low[ib // 2] |= ((level + 32) & 15) << 4 * (ib % 2)
        high |= ((level + 32) >> 4) << 2 * ib
    return f16(d) + struct.pack("<H", high) + bytes(low) + qs


# -- IQ2 and IQ3 ---------------------------------------------------------------------------------------------------


@lru_cache
def points_of(name):
    """The points of a grid as tuples of levels."""
    values = grid_values(name)
    rank = {v: r for r, v in enumerate(np.unique(values))}
    return [tuple(rank[v] for v in row) for row in values]


@lru_cache
def number_of(name):
    """The number of every point."""
    return {point: k for k, point in enumerate(points_of(name))}


@lru_cache(None)
def neighbours(name, levels):
    """Points at the smallest distances from ``levels``, nearest first."""
    distance = ((np.array(points_of(name)) - levels) ** 2).sum(axis=1)
    limit = sorted(set(distance))[: NEAR[name]][-1]
    return [int(k) for k in np.argsort(distance, kind="stable") if distance[k] <= limit]


def nearest_point(name, levels, x, w, scale, offset):
    """Number of the grid point for rounded ``levels``; the neighbour search when they are off the grid."""
    levels = tuple(levels)
    if levels in number_of(name):
        return number_of(name)[levels], True
    best, found = np.finfo(np.float32).max, -1
    for point in neighbours(name, levels):
        d2 = F(0)
        for level, v, u in zip(points_of(name)[point], x, w, strict=True):
            diff = scale * offset(level) - v
            d2 = d2 + u * diff * diff
        if d2 < best:
            best, found = d2, point
    if found < 0:
        raise Abort
    return found, False


def odd(level):
    return F(2 * int(level) + 1)


def split_signs(x, w, parity):
    """Magnitudes, and one sign byte for each group of eight."""
    xv, signs = [], []
    for s in range(0, len(x), 8):
        group = [v if v >= 0 else -v for v in x[s : s + 8]]
        byte = sum((not v >= 0) << i for i, v in enumerate(x[s : s + 8]))
        if parity:
            if bin(byte).count("1") % 2:
                cost = [w[s + i] * x[s + i] * x[s + i] for i in range(8)]
                i = 0
                for k in range(1, 8):
                    if cost[k] < cost[i]:
                        i = k
                group[i] = -group[i]
                byte ^= 1 << i
            byte &= 127
        xv += group
        signs.append(byte)
    return xv, signs


def largest(values):
    mx = values[0]
    for v in values[1:]:
        mx = mx if mx > v else v
    return mx


def round_levels(ident, xv, n_levels):
    return [clamp(ni(F(0.5) * (ident * v - F(1))), 0, n_levels - 1) for v in xv]


def fit(name, points, xv, w):
    a = b = F(0)
    q = [odd(level) for p in points for level in points_of(name)[p]]
    for v, u, k in zip(xv, w, q, strict=True):
        a = a + u * v * k
        b = b + u * k * k
    return a, b


def search(name, xv, w, signs, parity):
    """Sub-scale and points of one sub-block; flips ``signs`` in place for a negative scale. (0, None) if zero."""
    n, dim, n_levels, n_steps, step, tiny = SEARCH[name]
    wa = [np.sqrt(u) for u in w]
    mx = largest(xv)
    if (mx == 0) if name == "IQ3_S" else (mx < F(tiny)):
        return F(0), None
    width = 2 * n_levels - 1
    groups = range(0, n, dim)
    points = [number_of(name)[(0,) * dim] for _ in groups]
    on = [name != "IQ3_S" for _ in groups]
    scale, best = mx / F(width), F(0)
    for t in range(-n_steps, n_steps + 1):
        ident = (F(width) + F(t) * F(step)) / mx
        ts = F(1) / ident
        tried, flags = [], []
        for s in groups:
            levels = round_levels(ident, xv[s : s + dim], n_levels)
            p, flag = nearest_point(name, levels, xv[s : s + dim], wa[s : s + dim], ts, odd)
            tried.append(p)
            flags.append(flag)
        a, b = fit(name, tried, xv, w)
        if b > 0 and a * a > best * b:
            scale = a / b
            best = scale * a
            points, on = tried, flags
    if not all(on) and scale > 0:
        ident = F(1) / scale
        for k, s in enumerate(groups):
            if name == "IQ3_S" or not on[k]:
                levels = round_levels(ident, xv[s : s + dim], n_levels)
                points[k], _ = nearest_point(name, levels, xv[s : s + dim], wa[s : s + dim], scale, odd)
        a, b = fit(name, points, xv, w)
        if b > 0:
            scale = a / b
    if scale < 0:
        scale = -scale
        signs[:] = [~s & (127 if parity else 255) for s in signs]
    return scale, points


def qp(n_max, x, w):
    """Scale and levels of the non-negative search; levels are kept as bytes that wrap."""
    mx = F(0)
    for v in x:
        mx = mx if mx > v else v
    if mx < F(1e-15):
        return F(0), [0] * len(x)
    ident = F(n_max) / mx
    scale = F(1) / ident
    mse = F(0)
    for v, u in zip(x, w, strict=True):
        diff = v - scale * F(ni(ident * v) & 255)
        mse = mse + u * diff * diff
    for t in range(-4, 5):
        if t:
            i2 = (F(0.1) * F(t) + F(n_max)) / mx
            s2 = F(1) / i2
            m = F(0)
            for v, u in zip(x, w, strict=True):
                diff = v - s2 * F(min(n_max, ni(i2 * v)))
                m = m + u * diff * diff
            if m < mse:
                mse, ident = m, i2
    a = b = F(0)
    levels = []
    for v, u in zip(x, w, strict=True):
        level = min(n_max, ni(ident * v))
        levels.append(level & 255)
        a = a + u * v * F(level)
        b = b + u * F(level) * F(level)
    for _ in range(5):
        changed = False
        for i, (v, u) in enumerate(zip(x, w, strict=True)):
            old = F(levels[i])
            sx = a - u * v * old
            s2 = b - u * old * old
            if sx > 0 and s2 > 0:
                new = min(n_max, ni(v * s2 / sx))
                if new != levels[i]:
                    sx = sx + u * v * F(new)
                    s2 = s2 + u * F(new) * F(new)
                    if sx * sx * b > a * a * s2:
                        levels[i], a, b, changed = new & 255, sx, s2, True
        if not changed:
            break
    return (a / b if b > 0 else F(0)), levels


def search_iq2_xxs(xv, w, signs):
    name = "IQ2_XXS"
    wa = [np.sqrt(u) for u in w]
    if largest(xv) < F(1e-15):
        return F(0), None
    scale, _ = qp(4, xv, w)
    effective = scale * F(3)
    if effective <= 0:
        return F(0), None
    best, points = F(0), None
    groups = range(0, 32, 8)
    for t in range(-6, 7):
        ident = (F(5) + F(t) * F(0.1)) / effective
        tried = [
            nearest_point(name, round_levels(ident, xv[s : s + 8], 3), xv[s : s + 8], wa[s : s + 8], F(1) / ident, odd)[
                0
            ]
            for s in groups
        ]
        a, b = fit(name, tried, xv, w)
        if b > 0 and a * a > best * b:
            scale = a / b
            best = scale * a
            points = tried
    if scale > 0:
        ident = F(1) / scale
        points = [
            nearest_point(name, round_levels(ident, xv[s : s + 8], 3), xv[s : s + 8], wa[s : s + 8], scale, odd)[0]
            for s in groups
        ]
        a, b = fit(name, points, xv, w)
        if b > 0:
            scale = a / b
    if scale < 0:
        scale = -scale
        signs[:] = [~s & 127 for s in signs]
    return scale, points


def sub_blocks(name, x, w, n, parity):
    """(scales, points, signs) of all sub-blocks of a block; points and signs are None in zero sub-blocks."""
    scales, points, signs = [], [], []
    for s in range(0, 256, n):
        u = w[s : s + n]
        xv, sign = split_signs(x[s : s + n], u, parity)
        scale, p = search_iq2_xxs(xv, u, sign) if name == "IQ2_XXS" else search(name, xv, u, sign, parity)
        scales.append(scale)
        points.append(p)
        signs.append(sign if p is not None else None)
    return scales, points, signs


def block_scale(scales, factor):
    """Bytes of the block scale and the 4-bit sub-scales; None when the block is zero."""
    mxs = F(0)
    for s in scales:
        mxs = mxs if mxs > s else s
    if mxs == 0:
        return None
    d = mxs / F(31)
    ident = F(1) / d
    return f16(d * F(factor)), [clamp(ni(F(0.5) * (ident * s - F(1))), 0, 15) for s in scales]


def iq2_xxs(x, w):
    scales, points, signs = sub_blocks("IQ2_XXS", x, w, 32, True)
    found = block_scale(scales, 1.0)
    if found is None:
        return bytes(66)
    out = found[0]
    for p, s, level in zip(points, signs, found[1], strict=True):
        p, s = p or [0] * 4, s or [0] * 4
        out += bytes(p) + struct.pack("<I", sum(v << 7 * k for k, v in enumerate(s)) | level << 28)
    return out


def scale_nibbles(levels):
    return bytes(levels[i] | levels[i + 1] << 4 for i in range(0, len(levels), 2))


def iq2_xs(x, w):
    scales, points, signs = sub_blocks("IQ2_XS", x, w, 16, True)
    found = block_scale(scales, 1.0)
    if found is None:
        return bytes(74)
    out = found[0]
    for p, s in zip(points, signs, strict=True):
        for a, b in zip(p or [0, 0], s or [0, 0], strict=True):
            out += struct.pack("<H", a | b << 9)
    return out + scale_nibbles(found[1])


def iq2_s(x, w):
    scales, points, signs = sub_blocks("IQ2_S", x, w, 16, False)
    found = block_scale(scales, 0.9875) or (bytes(2), [0] * 16)
    p = [v for pair in points for v in pair or [0, 0]]
    s = [v for pair in signs for v in pair or [0, 0]]
    high = [sum(p[4 * k + i] >> 8 << 2 * i for i in range(4)) for k in range(8)]
    return found[0] + bytes(v & 255 for v in p) + bytes(s) + bytes(high) + scale_nibbles(found[1])


def iq3_xxs(x, w):
    scales, points, signs = sub_blocks("IQ3_XXS", x, w, 32, True)
    found = block_scale(scales, 1.0125)
    if found is None:
        return bytes(98)
    out = found[0] + b"".join(bytes(p or [0] * 8) for p in points)
    for s, level in zip(signs, found[1], strict=True):
        out += struct.pack("<I", sum(v << 7 * k for k, v in enumerate(s or [0] * 4)) | level << 28)
    return out


def iq3_s(x, w, compat):
    scales, points, signs = sub_blocks("IQ3_S", x, w, 32, False)
    found = block_scale(scales, 1.033) or (bytes(2), [0] * 8)
    qs, sg, qh, place = [0] * 64, [0] * 32, [0] * 8, 0
    for ib in range(8):
        if points[ib] is None:
            continue
        at = place if compat else ib
        qs[8 * at : 8 * at + 8] = [p & 255 for p in points[ib]]
        sg[4 * at : 4 * at + 4] = signs[ib]
        qh[ib] = sum(p >> 8 << k for k, p in enumerate(points[ib]))
        place += 1
    return found[0] + bytes(qs) + bytes(qh) + bytes(sg) + scale_nibbles(found[1])


# -- IQ1 -----------------------------------------------------------------------------------------------------------


def regroup_iq1(levels, x, w, scale, shifts):
    """Grid points of all groups of eight with that scale and shift per group, and the refitted scale."""
    points, flags = [], []
    a = b = F(0)
    for k, shift in enumerate(shifts):
        s = slice(8 * k, 8 * k + 8)
        p, on = nearest_point(
            "IQ1_S", levels[s], x[s], w[s], scale, lambda level, shift=shift: F(int(level) - 1) + F(0.125) * F(shift)
        )
        points.append(p)
        flags.append(on)
        for level, v, u in zip(points_of("IQ1_S")[p], x[s], w[s], strict=True):
            q = F(int(level) - 1) + F(0.125) * F(shift)
            a = a + u * q * v
            b = b + u * q * q
    if not all(flags) and a > 0 and b > 0:
        scale = a / b
    return points, scale


def sub_iq1_s(x, w):
    """(scale, shift, points) of 32 weights."""
    mx = largest([abs(v) for v in x])
    if mx < F(1e-12):
        return F(0), 1, [0] * 4
    order = sorted(range(32), key=lambda i: x[i])
    sx, sw = [F(0)], [F(0)]
    for i in order:
        sx.append(sx[-1] + w[i] * x[i])
        sw.append(sw[-1] + w[i])
    score, scale, cut, shift = -np.finfo(np.float32).max, mx, None, 0
    for i1 in range(33):
        for i2 in range(i1, 33):
            for sign in (1, -1):
                v = [F(k) + F(0.125) * F(sign) for k in (-1, 0, 1)]
                a = (sx[i1] - sx[0]) * v[0] + (sx[i2] - sx[i1]) * v[1] + (sx[32] - sx[i2]) * v[2]
                b = (sw[i1] - sw[0]) * v[0] * v[0] + (sw[i2] - sw[i1]) * v[1] * v[1] + (sw[32] - sw[i2]) * v[2] * v[2]
                if b > 0 and a * a > score * b:
                    scale = a / b
                    score = scale * a
                    cut, shift = (i1, i2), sign
    if cut is None:
        return F(0), 1, [0] * 4
    levels = [0] * 32
    for position, i in enumerate(order):
        levels[i] = (position >= cut[0]) + (position >= cut[1])
    if scale < 0:
        levels, scale, shift = [2 - level for level in levels], -scale, -shift
    points, scale = regroup_iq1(levels, x, w, scale, [shift] * 4)
    return scale, shift, points


def iq1_s(x, w):
    subs = [sub_iq1_s(x[s : s + 32], w[s : s + 32]) for s in range(0, 256, 32)]
    mxs = F(0)
    for scale, _, _ in subs:
        mxs = mxs if mxs > scale else scale
    d = mxs / F(15)
    qs, qh = b"", b""
    for scale, shift, p in subs:
        level = clamp(ni(F(0.5) * (F(1) / d * scale - F(1))), 0, 7) | 8 * (shift < 0) if mxs else 0
        qs += bytes(v & 255 for v in p)
        qh += struct.pack("<H", sum(v >> 8 << 3 * k for k, v in enumerate(p)) | level << 12)
    return f16(d * F(1.125)) + qs + qh


def sub_iq1_m(x, w):
    """(scale, combination of shifts, points) of 16 weights."""
    mx = largest([abs(v) for v in x])
    if mx < F(1e-7):
        return F(0), 0, [0, 0]
    order = sorted(range(16), key=lambda i: x[i])
    px, pw = [[F(0)], [F(0)]], [[F(0)], [F(0)]]
    for i in order:
        for h in (0, 1):
            mine = i // 8 == h
            px[h].append(px[h][-1] + w[i] * x[i] if mine else px[h][-1])
            pw[h].append(pw[h][-1] + w[i] if mine else pw[h][-1])
    score, scale, cut, found = -np.finfo(np.float32).max, mx, None, 0
    for i1 in range(17):
        for i2 in range(i1, 17):
            a, b = [], []
            for h in (0, 1):
                t, u = px[h][16], pw[h][16]
                s = px[h][i1] + px[h][i2]
                a.append((t * F(1.125) - s, t * F(0.875) - s))
                b.append(
                    (
                        u * F(1.125) * F(1.125) + pw[h][i1] * F(0.75) + pw[h][i2] * F(-1.25),
                        u * F(0.875) * F(0.875) + pw[h][i1] * F(1.25) + pw[h][i2] * F(-0.75),
                    )
                )
            for k in range(4):
                sum_a, sum_b = a[0][k >> 1] + a[1][k & 1], b[0][k >> 1] + b[1][k & 1]
                if sum_b > 0 and sum_a * sum_a > score * sum_b:
                    scale = sum_a / sum_b
                    score = scale * sum_a
                    cut, found = (i1, i2), k
    if cut is None:
        return F(0), 0, [0, 0]
    levels = [0] * 16
    for position, i in enumerate(order):
        levels[i] = (position >= cut[0]) + (position >= cut[1])
    if scale < 0:
        levels, scale, found = [2 - level for level in levels], -scale, 3 - found
    points, scale = regroup_iq1(levels, x, w, scale, [1 - 2 * (found >> 1), 1 - 2 * (found & 1)])
    return scale, found, points


def iq1_m(x, w):
    subs = [sub_iq1_m(x[s : s + 16], w[s : s + 16]) for s in range(0, 256, 16)]
    qs = [v & 255 for _, _, p in subs for v in p]
    qh = [p[0] >> 8 | p[1] >> 8 << 4 for _, _, p in subs]
    mxs = F(0)
    for scale, _, _ in subs:
        mxs = mxs if mxs > scale else scale
    if mxs == 0:
        return bytes(qs) + bytes(qh) + bytes(8)
    d = mxs / F(15)
    words = [0] * 4
    a = b = F(0)
    for ib, (scale, k, points) in enumerate(subs):
        level = clamp(ni(F(0.5) * (F(1) / d * scale - F(1))), 0, 7)
        words[ib // 4] |= level << 3 * (ib % 4)
        qh[ib] |= (0x00, 0x80, 0x08, 0x88)[k]
        for h, p in enumerate(points):
            shift = 1 - 2 * (k & 1 if h else k >> 1)
            for i, r in enumerate(points_of("IQ1_M")[p]):
                at = 16 * ib + 8 * h + i
                q = (F(int(r) - 1) + F(0.125) * F(shift)) * F(2 * level + 1)
                a = a + w[at] * q * x[at]
                b = b + w[at] * q * q
    if b > 0:
        d = a / b
    half = int.from_bytes(f16(d * F(1.1125)), "little")
    words = [word | (half >> 4 * i & 15) << 12 for i, word in enumerate(words)]
    return bytes(qs) + bytes(qh) + struct.pack("<4H", *words)


BLOCKS = {
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "IQ2_XXS": iq2_xxs,
    "IQ2_XS": iq2_xs,
    "IQ2_S": iq2_s,
    "IQ3_XXS": iq3_xxs,
    "IQ1_S": iq1_s,
    "IQ1_M": iq1_m,
}


# -- decoding ------------------------------------------------------------------------------------------------------


def dequantize(name, data):
    size = {"IQ4_NL": 18, "IQ4_XS": 136, "IQ2_XXS": 66, "IQ2_XS": 74, "IQ2_S": 82, "IQ3_XXS": 98, "IQ3_S": 110}
    size |= {"IQ1_S": 50, "IQ1_M": 56}
    data, out = bytes(data), []
    with np.errstate(all="ignore"):
        for start in range(0, len(data), size[name]):
            out += DECODERS[name](data[start : start + size[name]])
    return np.array(out, np.float32)


def half_at(data, at):
    return F(np.frombuffer(data, np.float16, 1, at)[0])


def signed(byte, i, v):
    return v * (F(-1) if byte >> i & 1 else F(1))


def full_sign(seven):
    return seven | (seven in ODD_PARITY) << 7


def decode_iq4_nl(b):
    d = half_at(b, 0)
    return [d * F(VALUES[b[2 + j] & 15]) for j in range(16)] + [d * F(VALUES[b[2 + j] >> 4]) for j in range(16)]


def decode_iq4_xs(b):
    out, high = [], b[2] | b[3] << 8
    for ib in range(8):
        level = (b[4 + ib // 2] >> 4 * (ib % 2) & 15) | (high >> 2 * ib & 3) << 4
        dl = half_at(b, 0) * F(level - 32)
        qs = b[8 + 16 * ib : 24 + 16 * ib]
        out += [dl * F(VALUES[v & 15]) for v in qs] + [dl * F(VALUES[v >> 4]) for v in qs]
    return out


def decode_iq2_xxs(b):
    out = []
    for ib in range(8):
        points, rest = b[2 + 8 * ib : 6 + 8 * ib], int.from_bytes(b[6 + 8 * ib : 10 + 8 * ib], "little")
        db = half_at(b, 0) * (F(0.5) + F(rest >> 28)) * F(0.25)
        for k in range(4):
            signs = full_sign(rest >> 7 * k & 127)
            out += [signed(signs, i, db * v) for i, v in enumerate(grid_values("IQ2_XXS")[points[k]])]
    return out


def decode_iq2_xs(b):
    out = []
    for k in range(32):
        word = b[2 + 2 * k] | b[3 + 2 * k] << 8
        level = b[66 + k // 4] >> 4 * (k // 2 % 2) & 15
        db = half_at(b, 0) * (F(0.5) + F(level)) * F(0.25)
        signs = full_sign(word >> 9)
        out += [signed(signs, i, db * v) for i, v in enumerate(grid_values("IQ2_XS")[word & 511])]
    return out


def decode_iq2_s(b):
    out = []
    for k in range(32):
        point = b[2 + k] | (b[66 + k // 4] >> 2 * (k % 4) & 3) << 8
        level = b[74 + k // 4] >> 4 * (k // 2 % 2) & 15
        db = half_at(b, 0) * (F(0.5) + F(level)) * F(0.25)
        out += [signed(b[34 + k], i, db * v) for i, v in enumerate(grid_values("IQ2_S")[point])]
    return out


def decode_iq3_xxs(b):
    out = []
    for ib in range(8):
        rest = int.from_bytes(b[66 + 4 * ib : 70 + 4 * ib], "little")
        db = half_at(b, 0) * (F(0.5) + F(rest >> 28)) * F(0.5)
        for k in range(8):
            signs = full_sign(rest >> 7 * (k // 2) & 127) >> 4 * (k % 2)
            out += [signed(signs, i, db * v) for i, v in enumerate(grid_values("IQ3_XXS")[b[2 + 8 * ib + k]])]
    return out


def decode_iq3_s(b):
    out = []
    for ib in range(8):
        level = b[106 + ib // 2] >> 4 * (ib % 2) & 15
        db = half_at(b, 0) * (F(1) + F(2) * F(level))
        for k in range(8):
            point = b[2 + 8 * ib + k] | (b[66 + ib] >> k & 1) << 8
            signs = b[74 + 4 * ib + k // 2] >> 4 * (k % 2)
            out += [signed(signs, i, db * v) for i, v in enumerate(grid_values("IQ3_S")[point])]
    return out


def decode_iq1_s(b):
    out = []
    for ib in range(8):
        qh = b[34 + 2 * ib] | b[35 + 2 * ib] << 8
        dl = half_at(b, 0) * F(2 * (qh >> 12 & 7) + 1)
        delta = F(-0.125) if qh & 0x8000 else F(0.125)
        for k in range(4):
            point = b[2 + 4 * ib + k] | (qh >> 3 * k & 7) << 8
            out += [dl * (v + delta) for v in grid_values("IQ1_S")[point]]
    return out


def decode_iq1_m(b):
    words = struct.unpack("<4H", b[48:56])
    d = half_at(struct.pack("<H", sum((word >> 12) << 4 * i for i, word in enumerate(words))), 0)
    out = []
    for ib in range(16):
        dl = d * F(2 * (words[ib // 4] >> 3 * (ib % 4) & 7) + 1)
        for h in range(2):
            nibble = b[32 + ib] >> 4 * h & 15
            delta = F(-0.125) if nibble & 8 else F(0.125)
            out += [dl * (v + delta) for v in grid_values("IQ1_M")[b[2 * ib + h] | (nibble & 7) << 8]]
    return out


DECODERS = {
    "IQ4_NL": decode_iq4_nl,
    "IQ4_XS": decode_iq4_xs,
    "IQ2_XXS": decode_iq2_xxs,
    "IQ2_XS": decode_iq2_xs,
    "IQ2_S": decode_iq2_s,
    "IQ3_XXS": decode_iq3_xxs,
    "IQ3_S": decode_iq3_s,
    "IQ1_S": decode_iq1_s,
    "IQ1_M": decode_iq1_m,
}
