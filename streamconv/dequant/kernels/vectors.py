"""A vector of table entries: LLVM's cost model rates gathers as expensive, so it never vectorizes such a loop itself.

Written as LLVM's own vector code, which every processor has some instructions for; as Python it is the plain loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload

from ...rows import Floats

#: elements written at once
WIDTH = 8

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FOUR, _EIGHT = ir.VectorType(_I64, WIDTH // 2), ir.VectorType(ir.FloatType(), WIDTH)


def put_products(pairs: Floats, packed: np.ndarray, scale: np.float32, out: Floats, at: Any) -> None:
    """Elements ``at … at + 7`` of ``out`` = both values of each of four bytes, times ``scale``. For kernels.

    Parameters
    ----------
    pairs : float32[256, 2], C order, the values that a byte stands for
    packed : uint8[n / 2]
    scale : float32
    out : float32[n]
    at : uint64, even, at most n - 8
    """
    for i in range(WIDTH):
        out[at + np.uint64(i)] = pairs[packed[int(at) + i >> 1], i % 2] * scale


@overload(put_products, jit_options={"nogil": True, "fastmath": False, "forceinline": True})
def _put_products(pairs, packed, scale, out, at):  # type: ignore[no-untyped-def]
    return lambda pairs, packed, scale, out, at: _vector_products(pairs, packed, scale, out, at)  # type: ignore[call-arg]


@intrinsic
def _vector_products(typing: Any, pairs: Any, packed: Any, scale: Any, out: Any, at: Any) -> Any:
    """The same with four loads of 8 bytes, one multiplication and one store."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def data(k: int) -> Any:
            return context.make_array(signature.args[k])(context, builder, values[k]).data

        table, source, target = builder.bitcast(data(0), _I64.as_pointer()), data(1), data(3)
        factor, start = values[2], values[4]
        found, factors = ir.Constant(_FOUR, ir.Undefined), ir.Constant(_EIGHT, ir.Undefined)
        first = builder.lshr(start, _I64(1))
        for k in range(WIDTH // 2):
            byte = builder.load(builder.gep(source, [builder.add(first, _I64(k))]))
            pair = builder.load(builder.gep(table, [builder.zext(byte, _I64)]), align=4)
            found = builder.insert_element(found, pair, _I32(k))
        for k in range(WIDTH):
            factors = builder.insert_element(factors, factor, _I32(k))
        products = builder.fmul(builder.bitcast(found, _EIGHT), factors)
        builder.store(products, builder.bitcast(builder.gep(target, [start]), _EIGHT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(pairs, packed, scale, out, at), generate
