"""log(1 + exp(x)) of float32, the same bits on every processor: those that torch gives on processors with AVX-512.

torch takes 32 numbers at a time and computes them with functions of SLEEF; those that are left over, with those of the C library.
The steps of both are these, in float32; where SLEEF keeps a sum in two float32 it is float64 here, which shows in three of the 34
thousand bfloat16 between -87 and 20.
"""

from __future__ import annotations

import math

import numpy as np

from ..rows import Floats
from .exponential import fused
from .made import Function

_AT_ONCE = 32
#: above, it is x itself; below, nothing
_LINEAR, _LEAST = 20, -120
#: ln 2 in two parts, as SLEEF's exponential, its logarithm and the C library's logarithm take them
_EXP_HIGH, _EXP_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187e-6)
_LN2 = float(np.float32(0.6931471824645996)) - float(np.float32(1.904654323148236e-9))
_LOG_HIGH, _LOG_LOW = np.float32(0.69313812256), np.float32(9.0580006145e-6)
_EXP_TERMS = (
    0.00019852761761285365,
    0.0013930443525534515,
    0.008333360776305199,
    0.041666485369205475,
    0.16666667163372040,
    0.5,
)
_LOG_TERMS = 0.3027294874, 0.3996108174, 0.6666694880
_C_TERMS = 0.14798198640, 0.15313838422, 0.18183572590, 0.22222198546, 0.28571429849, 0.40000000596, 0.66666668653
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
#: the C library's logarithm takes 1 + x apart from here on, and halves what is above the square root of 2
_APART, _ROOT = np.float32(0.41422), 0x3504F7


def _polynomial(x: Floats, terms: tuple[float, ...]) -> Floats:
    made = np.full_like(x, terms[0])
    for term in terms[1:]:
        made = fused(made, x, np.float32(term))
    return made


def _of_sleef(x: Floats) -> Floats:
    n = np.rint(x * np.float32(math.log2(math.e)))
    r = fused(n, -_EXP_LOW, fused(n, -_EXP_HIGH, x))
    power = np.ldexp((_ONE + fused(r * r, _polynomial(r, _EXP_TERMS), r)).astype(np.float64), n.astype(np.int32))
    y = power.astype(np.float32)
    k = np.frexp((y + _ONE) * np.float32(1 / 0.75))[1] - 1
    scale = np.ldexp(_ONE, -k)
    m = fused(y, scale, scale - _ONE).astype(np.float64)
    whole = m / (2 + m)
    near = whole.astype(np.float32)
    square = near * near
    rest = square * near * _polynomial(square, _LOG_TERMS)
    made: Floats = (k * _LN2 + 2 * whole + rest).astype(np.float32)
    return made


def _of_the_c_library(x: Floats) -> Floats:
    y = np.exp(x.astype(np.float64)).astype(np.float32)
    sum_ = _ONE + y
    bits = sum_.view(np.int32)
    k, low = (bits >> 23) - 127, bits & 0x7FFFFF
    lost = np.where(k > 0, _ONE - (sum_ - y), y - (sum_ - _ONE)) / sum_
    halved = low >= _ROOT
    mantissa = np.where(halved, low | 0x3F000000, low | 0x3F800000).astype(np.int32).view(np.float32)
    apart = y >= _APART
    exponent = np.where(apart, k + halved, 0).astype(np.float32)
    f, lost = np.where(apart, mantissa - _ONE, y), np.where(apart, lost, np.float32(0))
    half = _HALF * f * f
    s = f / (_TWO + f)
    z = s * s
    series = np.full_like(z, _C_TERMS[0])
    for term in _C_TERMS[1:]:
        series = series * z + np.float32(term)
    inner = s * (half + series * z)
    made: Floats = np.where(
        exponent == 0, f - (half - inner), exponent * _LOG_HIGH - ((half - (inner + (exponent * _LOG_LOW + lost))) - f)
    )
    return made


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)) of every number of float32 ``x``, by rows of its last axis; above 20 the number itself."""
    inner = np.clip(np.nan_to_num(x), _LEAST, _LINEAR)
    at = x.shape[-1] - x.shape[-1] % _AT_ONCE
    made = np.concatenate([_of_sleef(inner[..., :at]), _of_the_c_library(inner[..., at:])], axis=-1)
    return np.where((x > _LINEAR) | np.isnan(x), x, made)


SOFTPLUS = Function("softplus", 1, softplus)
