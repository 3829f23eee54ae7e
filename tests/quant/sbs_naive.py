"""SFP, NUQ and I8 as slow, obvious models: every step of gemma.cpp's encoders on one value, or on all divisions, at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F = np.float32


def fma(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """``a * b + c`` of float32, rounded once: the sum in double is rounded to odd, which the second rounding cannot spoil."""
    p, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    s = p + c
    part = s - p
    error = (p - (s - part)) + (c - part)
    even = (np.asarray(s).view(np.int64) & 1) == 0
    return np.where((error != 0) & even, np.nextafter(s, np.copysign(np.inf, error)), s).astype(F)


def bf16(v: np.float32) -> np.float32:
    """The nearest bfloat16, ties to even."""
    u = int(F(v).view(np.uint32))
    return np.uint32((u + 0x7FFF + (u >> 16 & 1)) >> 16 << 16).view(F)


def sfp(v: np.float32) -> int:
    """The byte of one value."""
    u = int(F(v).view(np.uint32)) >> 16
    exponent, mantissa = u >> 7 & 0xFF, (u & 0x7F) >> 1
    large = exponent > 119 or (exponent == 119 and mantissa > 59)
    r = 2 * mantissa if large else mantissa
    r += 7 + (r >> 4 & 1)
    carry = 0x80 if large else 0x40
    if r & carry:
        r, exponent = r & ~carry, exponent + 1
    if exponent < 104:
        return 0
    m = r >> 4
    if exponent == 104:
        m = max(m, 1)
    code = m | (exponent - 112) << 3 if exponent > 119 else m | (exponent - 104) << 2
    return code | (u >> 8 & 0x80)


def scaled(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], np.float32]:
    """Values of a tensor in units of its scale, and the scale."""
    top = np.abs(x).max(initial=0)
    if top <= F(1.875):
        return x, F(1)
    scale = F(top / F(1.875))
    return np.copysign(np.minimum(F(1.875), np.abs(x * F(1 / np.float64(scale)))), x), scale


def encode_sfp(x: NDArray[np.float32]) -> bytes:
    return bytes(map(sfp, scaled(x)[0]))


def encode_i8(x: NDArray[np.float32]) -> bytes:
    out = b""
    for a in range(0, len(x), 128):
        values = x[a : a + 128]
        width = F(values.max() - values.min()) or F(1)
        with np.errstate(over="ignore"):
            s = F(255) / width
            s = s if np.isfinite(bf16(s)) else F(255)
        z = bf16(F(int(fma(-s, values.min(), F(-128)))))
        inverse = bf16(F(F(1) / s))
        q = np.clip(np.rint(fma(bf16(s), values, z)), -128, 127).astype(np.int8)
        out += b"".join((v.view(np.uint32) >> 16).astype("<u2").tobytes() for v in (inverse, z)) + q.tobytes()
    return out


def _nuq_group(x: NDArray[np.float32]) -> tuple[bytes, NDArray[np.uint8]]:
    """The centres and the index of each of 256 values."""
    numbered = np.sort(((x.view(np.uint32) & ~np.uint32(255)) | np.arange(256, dtype=np.uint32)).view(F))
    v = (numbered.view(np.uint32) & ~np.uint32(255)).view(F).astype(np.float64)
    exact = np.concatenate(([0.0], np.cumsum(v)))
    c1, c2 = exact.astype(F), np.concatenate(([0.0], np.cumsum(v * v))).astype(F)
    first, last = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    size = np.maximum(last - first + 1, 1).astype(F)
    s, squares = c1[last + 1] - c1[first], c2[last + 1] - c2[first]
    mean = s * (F(1) / size)
    cost = np.maximum(F(0), fma(mean, fma(mean, size, -(s + s)), squares))
    cost[last < first] = np.inf
    least, begin = cost[0].copy(), np.zeros((16, 256), int)
    for k in range(1, 16):
        all_ = least[:-1, None] + cost[1:]  # of first = 1 …
        best = all_.argmin(axis=0)  # the first of equals
        found = all_[best, np.arange(256)]
        begin[k] = np.where(found < least, best + 1, begin[k - 1])
        least = np.minimum(found, least)
    table, index, end = bytearray(16), np.zeros(256, np.uint8), 256
    for k in range(15, -1, -1):
        a = begin[k, end - 1]
        table[k] = sfp(F((exact[end] - exact[a]) / (end - a)))
        index[numbered[a:end].view(np.uint32) & 255] = k
        end = a
        if a == 0:
            break
    return bytes(table), index


def encode_nuq(x: NDArray[np.float32]) -> bytes:
    x, out = scaled(x)[0], b""
    for a in range(0, len(x), 256):
        values = x[a : a + 256]
        filled = np.concatenate((values, np.full(256 - len(values), values.max(), F)))
        table, index = _nuq_group(filled)
        packed = index[::2] | index[1::2] << 4
        out += table + packed[: (len(values) + 1) // 2].tobytes()
    return out


ENCODERS = {"sfp": encode_sfp, "nuq": encode_nuq, "i8": encode_i8}
