"""The inner loop of NUQ, in vectors that are written down.

As a loop over lanes it has too many arrays for LLVM to see that what it stores changes none that it reads, and stays scalar, at
four times the time of the whole search.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

_FLOAT, _WORD, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class _Vectors:
    """Arrays of float32 in LLVM's terms, ``n`` values at a time."""

    def __init__(self, context: Any, builder: Any, n: int) -> None:
        self.type = ir.VectorType(_FLOAT, n)
        self._context, self._builder, self._n = context, builder, n

    def row(self, kind: Any, value: Any, number: int = 0) -> Any:
        """Where row ``number`` of a matrix, or a vector, lies."""
        array = self._context.make_array(kind)(self._context, self._builder, value)
        stride = self._builder.extract_value(array.strides, 0)
        start = self._builder.ptrtoint(array.data, _INDEX)
        start = self._builder.add(start, self._builder.mul(stride, _INDEX(number)))
        return self._builder.inttoptr(start, _FLOAT.as_pointer())

    def place(self, row: Any, at: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(row, [at]), self.type.as_pointer())

    def load(self, row: Any, at: Any) -> Any:
        """``n`` values from ``at`` on."""
        return self._builder.load(self.place(row, at), align=4)

    def spread(self, row: Any, at: Any) -> Any:
        """The value ``at``, ``n`` times."""
        one = self._builder.insert_element(
            ir.Constant(self.type, ir.Undefined), self._builder.load(self._builder.gep(row, [at])), _WORD(0)
        )
        return self._builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_WORD, self._n), [0] * self._n))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        kind, name = ir.FunctionType(self.type, [self.type] * 3), f"llvm.fma.v{self._n}f32"
        function = get_or_insert_function(self._builder.module, kind, name)  # type: ignore[no-untyped-call]
        return self._builder.call(function, [a, b, c])

    def choose(self, comparison: str, a: Any, b: Any) -> Any:
        """``a`` where it compares so with ``b``, else ``b``."""
        return self._builder.select(self._builder.fcmp_ordered(comparison, a, b), a, b)


@intrinsic(prefer_literal=True)
def least_side_by_side(
    typing: Any, before: Any, now: Any, sums: Any, tables: Any, b: Any, at: Any, lo: Any, hi: Any, n: Any
) -> Any:
    """now[b …] = the least of before[b …] and, over ``lo <= a <= hi``, of before[a - 1] + cost(a, b …), ``n`` side by side.

    before, now : float32[> b + n]
    sums : float32[2, > b + n], of values and of squares before each one
    tables : float32[>= 3, …]: of lengths 1 / length, the length, and what costs are at least
    at : where the tables have the length of the values 1 … b
    """
    size = n.literal_value

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        v = _Vectors(context, builder, size)
        kinds = signature.args
        old, new = v.row(kinds[0], values[0]), v.row(kinds[1], values[1])
        sum_row, square_row = (v.row(kinds[2], values[2], r) for r in range(2))
        inverse_row, size_row, lowest_row = (v.row(kinds[3], values[3], r) for r in range(3))
        start, base, lo, hi = values[4:8]
        after = builder.add(start, _INDEX(1))
        sum_here, square_here, first = v.load(sum_row, after), v.load(square_row, after), v.load(old, start)
        entry, loop, end = builder.block, builder.append_basic_block("a"), builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed("<=", lo, hi), loop, end)
        builder.position_at_end(loop)
        a, best = builder.phi(_INDEX), builder.phi(v.type)
        length = builder.add(builder.sub(base, a), _INDEX(1))
        s = builder.fsub(sum_here, v.spread(sum_row, a))
        squares = builder.fsub(square_here, v.spread(square_row, a))
        mean = builder.fmul(s, v.load(inverse_row, length))
        cost = v.fma(mean, v.fma(mean, v.load(size_row, length), builder.fneg(builder.fadd(s, s))), squares)
        cost = v.choose(">", cost, v.load(lowest_row, length))
        found = v.choose("<", builder.fadd(v.spread(old, builder.sub(a, _INDEX(1))), cost), best)
        following = builder.add(a, _INDEX(1))
        for phi, begin, go_on in ((a, lo, following), (best, first, found)):
            phi.add_incoming(begin, entry)
            phi.add_incoming(go_on, loop)
        builder.cbranch(builder.icmp_signed("<=", following, hi), loop, end)
        builder.position_at_end(end)
        least = builder.phi(v.type)
        least.add_incoming(first, entry)
        least.add_incoming(found, loop)
        builder.store(least, v.place(new, start), align=4)
        return context.get_dummy_value()

    return types.void(before, now, sums, tables, types.int64, types.int64, types.int64, types.int64, n), generate
