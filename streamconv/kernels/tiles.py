"""First looks at a tile of rows: stored numbers become float32, and how large they are, in one pass over memory.

The bits of non-negative floats order like the floats, and integer maxima, unlike float ones, are free to vectorize. NaN
counts as larger than infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, overload

from .lanes import bf16_to_f32, bits, from_bits, inline, kernel, magnitude

_ABS, _ABS16, _SIGN16 = np.int32(0x7FFFFFFF), np.uint16(0x7FFF), np.uint16(0x8000)
#: blocks that a kernel takes through all its steps before the next ones: few enough for the first-level cache
GROUP = 64


def value(v: Any) -> Any:
    """``v`` as float32: a float32 itself, or the bfloat16 whose bits are uint16 ``v``. For kernels over either."""
    return bf16_to_f32(v) if isinstance(v, np.uint16) else v


@overload(value, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _value(v):  # type: ignore[no-untyped-def]
    """Decided when a kernel is compiled."""
    if isinstance(v, types.Integer):
        return lambda v: from_bits(np.int32(np.int32(v) << 16))
    return lambda v: v


def magnitude_bits(v: Any) -> Any:
    """What orders values by magnitude: int32 of a float32, or uint16 of a bfloat16, of which twice as many fit a register."""
    return np.uint16(v & _ABS16) if isinstance(v, np.uint16) else bits(magnitude(v))


@overload(magnitude_bits, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _magnitude_bits(v):  # type: ignore[no-untyped-def]
    if isinstance(v, types.Integer):
        return lambda v: np.uint16(v & _ABS16)
    return lambda v: bits(magnitude(v))


def from_magnitude_bits(size: Any) -> Any:
    """The magnitude as float32 again."""
    return from_bits(np.int32(np.int32(size) << 16) if isinstance(size, np.uint16) else size)


@overload(from_magnitude_bits, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _from_magnitude_bits(size):  # type: ignore[no-untyped-def]
    if size is types.uint16:
        return lambda size: from_bits(np.int32(np.int32(size) << 16))
    return lambda size: from_bits(size)


def signed_bits(v: Any) -> Any:
    """The bits of a float32 as int32, or of a bfloat16 as int16: they order as the values do where these are not negative."""
    return v.view(np.int16) if isinstance(v, np.uint16) else bits(v)


@overload(signed_bits, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _signed_bits(v):  # type: ignore[no-untyped-def]
    if isinstance(v, types.Integer):
        return lambda v: np.int16(v)
    return lambda v: bits(v)


def negated_bits(v: Any) -> Any:
    """``signed_bits`` of -v."""
    return (v ^ _SIGN16).view(np.int16) if isinstance(v, np.uint16) else bits(-v)


@overload(negated_bits, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _negated_bits(v):  # type: ignore[no-untyped-def]
    if isinstance(v, types.Integer):
        return lambda v: np.int16(v ^ _SIGN16)
    return lambda v: bits(-v)


def bits_missing(v: Any) -> Any:
    """How many bits are missing below ``signed_bits`` to those of a float32: int32 0 or 16."""
    return np.int32(16 if isinstance(v, np.uint16) else 0)


@overload(bits_missing, jit_options={"nogil": True, "forceinline": True})
def _bits_missing(v):  # type: ignore[no-untyped-def]
    missing = np.int32(16 if isinstance(v, types.Integer) else 0)
    return lambda v: missing


def prefetch(x: Any, row: int) -> None:
    """Tell the processor that row ``row`` of matrix ``x``, which need not exist, is read soon. For kernels."""


@overload(prefetch, jit_options={"nogil": True, "forceinline": True})
def _prefetch(x, row):  # type: ignore[no-untyped-def]
    return lambda x, row: _prefetch_line(x, row)  # type: ignore[call-arg]


@intrinsic
def _prefetch_line(typing: Any, x: Any, row: Any) -> Any:
    """The first cache line of a row."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        array = context.make_array(signature.args[0])(context, builder, values[0])
        offset = builder.mul(values[1], builder.extract_value(array.strides, 0))
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        read, keep, data = word(0), word(3), word(1)
        builder.call(call, [builder.gep(builder.bitcast(array.data, byte), [offset]), read, keep, data])
        return context.get_dummy_value()

    return types.void(x, row), generate


@kernel
def largest(x):  # type: ignore[no-untyped-def]
    """The largest magnitude in ``x`` float32[n], NaN when there is one; 0 when it is empty."""
    found = np.int32(0)
    for i in range(len(x)):
        size = bits(magnitude(x[i]))
        found = size if size > found else found
    return from_bits(found)


@kernel
def widen_bf16(words, x):  # type: ignore[no-untyped-def]
    """Fill ``x`` float32[n] from bfloat16 ``words`` uint16[n]; return the largest magnitude, as ``largest`` does."""
    found = np.int32(0)
    for i in range(len(words)):
        v = np.int32(np.int32(words[i]) << 16)
        x[i] = from_bits(v)
        size = np.int32(v & _ABS)
        found = size if size > found else found
    return from_bits(found)


@kernel
def block_largest(x, top):  # type: ignore[no-untyped-def]
    """The largest magnitude of each block. x : float32[n_blocks, block_size], or bfloat16 as uint16; top : float32[n_blocks]."""
    for b in range(len(x)):
        values = x[b]
        found = np.int32(0)
        for i in range(
            len(values)
        ):  # runs to a length unknown here: LLVM unrolls a known one before it could vectorize
            size = bits(magnitude(value(values[i])))
            found = size if size > found else found
        top[b] = from_bits(found)


@inline
def larger(found, top):  # type: ignore[no-untyped-def]
    """The largest magnitude of ``found`` and float32[n] ``top``, NaN when there is one."""
    size = bits(found)
    for b in range(len(top)):
        other = bits(magnitude(top[b]))
        size = other if other > size else size
    return from_bits(size)
