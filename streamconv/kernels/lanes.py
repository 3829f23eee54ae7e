"""What all block kernels share: decorators, exact float helpers and the lane layout.

Bytes are fixed by the order of float32 operations inside a sub-block, while sub-blocks do not depend on each other. So
kernels put ``LANES`` sub-blocks side by side and run every scalar step of the reference as an inner loop over the lanes:
LLVM turns that loop into SIMD code without ever reordering a sum. A *tile* is a flat float32 array holding matrices of up
to 32 elements x ``LANES`` lanes, element ``i`` of lane ``j`` at ``i * LANES + j``; *regs* is another, holding one vector
of ``LANES`` values per named row. Two flat arrays with constant offsets (rather than many small arrays) let LLVM prove
that loads and stores do not overlap; with many arrays it gives up and stays scalar.

All float constants are ``np.float32``: one Python float would turn an expression into double.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from .disk_cache import DiskCache
from .vectors import compiler

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": False, "boundscheck": False, "error_model": "numpy"}

LANES = 32
#: for ``vector_bits`` of kernels that whole registers make faster on every processor that was measured
WIDE = 512


def kernel(function: Callable[..., Any] | None = None, *, vector_bits: int | None = None) -> Any:
    """An outer kernel: compiled at first use, kept on disk. A decorator, with or without arguments.

    Parameters
    ----------
    function : what is compiled
    vector_bits : how wide LLVM makes its vectors, where the processor has such: WIDE, or None for what LLVM thinks best for
        the processor. Bytes do not depend on it; ``bench/vectors.py`` measures which is faster.
    """
    if function is None:
        return partial(kernel, vector_bits=vector_bits)
    dispatcher = njit(pipeline_class=compiler(vector_bits), **_OPTIONS)(function)
    dispatcher._cache = DiskCache(function, vector_bits)
    return dispatcher


def inline(
    function: Callable[..., Any] | None = None, *, vector_bits: int | None = None, optimized: bool = True
) -> Any:
    """A helper that disappears into the kernels that call it, but whose loops became vectors before: see ``kernel``.

    It takes much less time to compile without code of its own; Python that calls it runs its source.

    Parameters
    ----------
    function, vector_bits : see ``kernel``
    optimized : False for a large helper without loops over lanes that one kernel calls: with the kernel it is optimized anyway
    """
    if function is None:
        return partial(inline, vector_bits=vector_bits, optimized=optimized)
    options = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    helper = njit(forceinline=True, pipeline_class=compiler(vector_bits, True, optimized), **options)(function)
    if helper is not function:  # as it is where numba compiles nothing
        helper.add_overload = lambda result: helper.overloads.update({tuple(result.signature.args): result})
        helper._compile_for_args = lambda *_, **__: function  # which numba then calls
    return helper


@inline
def aligned(size):  # type: ignore[no-untyped-def]
    """float32[size], not filled, that begins at a cache line: no vector of a matrix of ``LANES`` columns lies in two."""
    raw = np.empty(size + 16, np.float32)
    start = np.uint64(-np.int64(raw.ctypes.data >> 2) & 15)
    return raw[start : start + np.uint64(size)]


ZERO = np.float32(0.0)
ONE = np.float32(1.0)
HALF = np.float32(0.5)
#: below this largest magnitude a sub-block counts as all zero (``GROUP_MAX_EPS``)
EPSILON = np.float32(1e-15)
#: from here on ``np.rint`` and ``rint_any`` disagree
RINT_LIMIT = np.float32(4194304.0)
_RINT_MAGIC = np.float32(12582912.0)
_INT32_LIMIT = np.float32(2147483648.0)
_MANTISSA = np.int32(0x7FFFFF)
_RINT_BIAS = np.int32(0x400000)
_ABS = np.int32(0x7FFFFFFF)


@intrinsic
def fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """``a * b + c`` of float32, rounded once."""
    f32 = types.float32

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.fma(*values)

    return f32(f32, f32, f32), code


@inline
def bits(v):  # type: ignore[no-untyped-def]
    """The bit pattern of float32 ``v`` as int32."""
    return np.float32(v).view(np.int32)


@inline
def from_bits(b):  # type: ignore[no-untyped-def]
    """The float32 whose bit pattern is int32 ``b``."""
    return np.int32(b).view(np.float32)


@inline
def rint_any(v):  # type: ignore[no-untyped-def]
    """The reference's ``nearest_int``, int32: ties to even below RINT_LIMIT, its own wrapped values from there on and for NaN."""
    return np.int32((bits(v + _RINT_MAGIC) & _MANTISSA) - _RINT_BIAS)


@inline
def clamp(v, low, high):  # type: ignore[no-untyped-def]
    """``v`` limited to ``low..high``; all three of one type, not NaN."""
    v = v if v > low else low
    return v if v < high else high


@inline
def magnitude(v):  # type: ignore[no-untyped-def]
    """|v| of a float32."""
    return from_bits(bits(v) & _ABS)


@inline
def all_bits(size):  # type: ignore[no-untyped-def]
    """int32 -1 for any ``size`` that is not negative: for ``blend``, which needs one that LLVM does not see through."""
    return np.int32(~np.int32(np.int32(size) >> 31))


@inline
def blend(chosen, a, b, ones):  # type: ignore[no-untyped-def]
    """float32 ``a`` if ``chosen`` else ``b``, for a number in memory that a lane replaces by ``a`` or keeps.

    From an ``if``, or any expression it can prove to be one, LLVM makes masked stores and chosen addresses there, which are
    many times slower than these three operations; hence ``ones``, made by ``all_bits``.
    """
    mask = np.int32(np.int32(-np.int32(chosen)) & ones)
    return from_bits(np.int32(bits(b) ^ np.int32(np.int32(bits(a) ^ bits(b)) & mask)))


@inline
def round_half_away(v):  # type: ignore[no-untyped-def]
    """C ``roundf``, still float32: ties away from zero."""
    t = np.trunc(v)
    return t + np.copysign(ONE, v) if magnitude(v - t) >= HALF else t


@inline
def to_int32(v):  # type: ignore[no-untyped-def]
    """``v`` truncated to int32; 0 for NaN and out of range.

    x86 yields INT32_MIN there; the reference only ever keeps the low byte of it, which is 0 too.
    """
    return np.int32(v if magnitude(v) < _INT32_LIMIT else ZERO)


@inline
def f32_to_f16(v):  # type: ignore[no-untyped-def]
    """Bits of the nearest float16 (ties to even, overflow to infinity, NaN to 0x7e00) as int32."""
    u = bits(v)
    a = np.int32(u & _ABS)
    normal = np.int32(np.int32(np.int32(a - 0x38000000) + np.int32(0xFFF) + np.int32((a >> 13) & 1)) >> 13)
    # adding 0.5 makes the FPU round at 2^-24, the step of float16 denormals
    small = np.int32(bits(from_bits(a) + HALF) - 0x3F000000)
    h = small if a < 0x38800000 else normal
    h = np.int32(0x7C00) if a >= 0x477FF000 else h
    h = np.int32(0x7E00) if a > 0x7F800000 else h
    return np.int32(h | np.int32((u >> 16) & 0x8000))


@inline
def f16_to_f32(h):  # type: ignore[no-untyped-def]
    """The value of float16 bits ``h`` (any integer type, low 16 bits)."""
    m = np.int32(np.int32(h) & 0x7FFF)
    wide = np.int32(m << 13)
    small = np.float32(m) * np.float32(2.0**-24)
    normal = from_bits(np.int32(wide + (0x38000000 if m < 0x7C00 else 0x70000000)))
    v = small if m < 0x400 else normal
    return from_bits(bits(v) | np.int32(np.int32(np.int32(h) & 0x8000) << 16))


@inline
def f32_to_bf16(v):  # type: ignore[no-untyped-def]
    """Bits of the nearest bfloat16 (ties to even) as int32, low 16 bits."""
    u = bits(v)
    high = np.int32(u >> 16)
    # 0x7fff + odd carries into the upper half exactly when the lower half rounds up
    carry = np.int32(np.int32(np.int32(u & 0xFFFF) + np.int32(0x7FFF) + np.int32(high & 1)) >> 16)
    nan = np.int32(u & _ABS) > 0x7F800000
    return np.int32((np.int32(high | 0x40) if nan else np.int32(high + carry)) & 0xFFFF)


@inline
def bf16_to_f32(h):  # type: ignore[no-untyped-def]
    """The value of bfloat16 bits ``h`` (low 16 bits of any integer type)."""
    return from_bits(
        np.int32(np.int32(np.int32(h) & 0x7FFF) << 16) | (np.int32(-0x80000000) if h & 0x8000 else np.int32(0))
    )


@inline
def put_f16(out, at, v):  # type: ignore[no-untyped-def]
    """Store ``v`` as little-endian float16 in the bytes ``out[at], out[at + 1]``; return the value stored."""
    h = f32_to_f16(v)
    out[at] = np.uint8(h & 0xFF)
    out[at + 1] = np.uint8(h >> 8)
    return f16_to_f32(h)


@inline
def get_f16(data, at):  # type: ignore[no-untyped-def]
    """The little-endian float16 in the bytes ``data[at], data[at + 1]`` as float32."""
    return f16_to_f32(np.int32(data[at]) | np.int32(np.int32(data[at + 1]) << 8))
