"""What is done to 32 numbers, or 16 rows of 16, as vectors of LLVM's own.

From loops over so few numbers LLVM makes vectors with much around them, and sums up a maximum or gathers bits one by one. So each
function here, which says in Python what it does, is compiled from operations on vectors instead; LLVM splits these into such as
the processor has. What reads numbers of blocks reads float32, or bfloat16 as uint16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending
from numba.core import cgutils
from numba.core.typing import templates

from .lanes import from_bits, inline, rint_any
from .tiles import negated_bits, signed_bits, value

#: numba has no annotations
types: Any = numba.types
_extending: Any = extending
_templates: Any = templates
_function: Any = cgutils.get_or_insert_function

SIZE = 32
_ABS = np.int32(0x7FFFFFFF)
_I8, _I16, _I32, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()


def highest(values: Any) -> Any:
    """The largest of their ``signed_bits``."""
    return max(signed_bits(v) for v in values)


def highest_negated(values: Any) -> Any:
    """The largest of their ``negated_bits``."""
    return max(negated_bits(v) for v in values)


def lowest_ordered(values: Any) -> Any:
    """The lowest as a number that orders like it; ``from_ordered`` gives it back. -0 is below +0, NaN beyond what has its sign."""
    return min(_ordered(v) for v in values)


def highest_ordered(values: Any) -> Any:
    """The highest, likewise."""
    return max(_ordered(v) for v in values)


def _ordered(v: Any) -> Any:
    word = signed_bits(v)
    return word ^ type(word)((word >> 15) & 0x7FFF if isinstance(word, np.int16) else (word >> 31) & _ABS)


@inline
def from_ordered(v, missing):  # type: ignore[no-untyped-def]
    """The float32 of what an ordered maximum or minimum gave. v : int32; missing : ``bits_missing`` of the numbers."""
    return from_bits(np.int32(np.int32(v ^ np.int32(np.int32(v >> 31) & np.int32(_ABS >> missing))) << missing))


def truncated_levels(
    values: Any, base: Any, factor: Any, offset: Any, cap: Any, five: Any, row: Any, start: Any
) -> None:
    """level = min(trunc((value − base) · factor + offset), cap), 0 for NaN; to be stored as ``_put`` does.

    base, factor, offset, cap : float32; five, row, start : as there
    """
    levels = []
    for v in values:
        level = (value(v) - base) * factor + offset
        level = level if level > 0 else np.float32(0)
        levels.append(int(level if level < cap else cap))
    _put(levels, five, row, start)


def nearest_levels(values: Any, base: Any, factor: Any, bottom: Any, top: Any, five: Any, row: Any, start: Any) -> None:
    """level = clamp(rint_any((value − base) · factor), bottom, top) − bottom; to be stored as ``_put`` does.

    base, factor : float32; bottom, top : int32; five, row, start : as there
    """
    levels = []
    for v in values:
        level = int(rint_any(factor * (value(v) - base)))
        levels.append(min(max(level, int(bottom)), int(top)) - int(bottom))
    _put(levels, five, row, start)


def _put(levels: list[int], five: Any, row: Any, start: Any) -> None:
    """Store the low four bits of levels j and j + 16 in the j-th byte from ``start`` on, the fifth of all in the four before.

    five : whether levels have a fifth bit; row : uint8[>= start + 16]
    """
    for j in range(16):
        row[start + j] = (levels[j] & 15) | (levels[j + 16] & 15) << 4
    if five:
        for k in range(4):
            row[start - 4 + k] = sum((levels[8 * k + i] >> 4) << i for i in range(8))


def transpose(source: Any, at: Any, step: Any, target: Any, to: Any, to_step: Any) -> None:
    """Turn 16 rows of 16 into columns: target[to + i · to_step + k] = source[at + k · step + i], read before any is written.

    source, target : float32[n]
    """
    square = [[source[at + k * step + i] for k in range(16)] for i in range(16)]
    for i in range(16):
        target[to + i * to_step : to + i * to_step + 16] = square[i]


def copy_16(source: Any, at: Any, target: Any, to: Any) -> None:
    """target[to : to + 16] = source[at : at + 16], float32[n] or uint8[n]; what becomes bytes is 0 to 255 but for its fraction."""
    target[to : to + 16] = source[at : at + 16]


class _Vectors:
    """Operations on vectors of ``SIZE``, in the block of a builder."""

    def __init__(self, context: Any, builder: Any) -> None:
        self._context, self._builder = context, builder

    def splat(self, scalar: Any) -> Any:
        """A scalar of LLVM in every place."""
        kind = ir.VectorType(scalar.type, SIZE)
        first = self._builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, SIZE), [0] * SIZE)
        return self._builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)

    def index(self, kind: Any, number: Any) -> Any:
        """A whole number of any type as that of an index."""
        return self._context.cast(self._builder, number, kind, types.intp)

    def constant(self, kind: Any, number: float) -> Any:
        return ir.Constant(ir.VectorType(kind, SIZE), [number] * SIZE)

    def pointer(self, array_type: Any, array: Any, kind: Any) -> Any:
        """Where a one-dimensional array begins, as a pointer to ``kind``."""
        data = self._context.make_array(array_type)(self._context, self._builder, array).data
        return self._builder.bitcast(data, kind.as_pointer())

    def load_bits(self, array_type: Any, array: Any) -> Any:
        """The bits of the first numbers of an array."""
        word = _I32 if array_type.dtype is types.float32 else _I16
        pointer = self.pointer(array_type, array, ir.VectorType(word, SIZE))
        return self._builder.load(pointer, align=word.width // 8)

    def load(self, array_type: Any, array: Any) -> Any:
        """The first numbers of an array as float32."""
        found = self.load_bits(array_type, array)
        if array_type.dtype is not types.float32:
            found = self._builder.shl(self._builder.zext(found, ir.VectorType(_I32, SIZE)), self.constant(_I32, 16))
        return self._builder.bitcast(found, ir.VectorType(_F32, SIZE))

    def store(self, vector: Any, array_type: Any, array: Any, at: Any) -> None:
        """Put ``vector`` into an array of bytes, from ``at`` on."""
        begin = self._builder.gep(self.pointer(array_type, array, _I8), [at])
        self._builder.store(vector, self._builder.bitcast(begin, vector.type.as_pointer()), align=1)

    def reduce(self, how: str, vector: Any) -> Any:
        """``smax`` or ``smin`` of all."""
        word = vector.type.element
        kind = ir.FunctionType(word, [vector.type])
        name = f"llvm.vector.reduce.{how}.v{SIZE}i{word.width}"
        return self._builder.call(_function(self._builder.module, kind, name), [vector])

    def sign(self, words: Any) -> Any:
        """Only the highest bit, in each place."""
        width = words.type.element.width
        return ir.Constant(words.type, [-(1 << (width - 1))] * SIZE)

    def load_ordered(self, array_type: Any, array: Any) -> Any:
        """The first numbers of an array as ``_ordered`` gives them."""
        words = self.load_bits(array_type, array)
        shift, one = (ir.Constant(words.type, [n] * SIZE) for n in (words.type.element.width - 1, 1))
        return self._builder.xor(words, self._builder.lshr(self._builder.ashr(words, shift), one))

    def larger(self, a: Any, b: Any) -> Any:
        """``a`` if a > b else ``b``, in each place: ``b`` where one is NaN."""
        return self._builder.select(self._compare(">", a, b), a, b)

    def smaller(self, a: Any, b: Any) -> Any:
        """``a`` if a < b else ``b``."""
        return self._builder.select(self._compare("<", a, b), a, b)

    def _compare(self, sign: str, a: Any, b: Any) -> Any:
        compare = self._builder.fcmp_ordered if a.type.element == _F32 else self._builder.icmp_signed
        return compare(sign, a, b)

    def put(self, levels: Any, five: Any, kind: Any, row: Any, start: Any) -> None:
        """See ``_put``; levels : i32, whose bits beyond the fifth are 0."""
        b = self._builder
        narrow = b.trunc(b.and_(levels, self.constant(_I32, 31)), ir.VectorType(_I8, SIZE))
        low, high = (
            b.shuffle_vector(narrow, narrow, ir.Constant(ir.VectorType(_I32, 16), list(range(a, a + 16))))
            for a in (0, 16)
        )
        sixteen = ir.VectorType(_I8, 16)
        low = b.and_(low, ir.Constant(sixteen, [15] * 16))
        self.store(b.or_(low, b.shl(high, ir.Constant(sixteen, [4] * 16))), kind, row, start)
        with b.if_then(five):
            # the fifth bit to the sign, which is what processors gather
            signs = b.icmp_signed("<", b.shl(narrow, self.constant(_I8, 3)), self.constant(_I8, 0))
            self.store(b.bitcast(signs, _I32), kind, row, b.sub(start, start.type(4)))


def _compiled(function: Callable[..., Any], returns: Callable[[Any], Any]) -> Callable[..., Any]:
    """Decorates what makes the code of ``function`` from (vectors, builder, types, values).

    returns : the type of what it gives, from that of the numbers
    """

    def decorate(code: Callable[..., Any]) -> Callable[..., Any]:
        @_templates.infer_global(function)
        class Template(_templates.AbstractTemplate):  # type: ignore[misc]
            def generic(self, args: Any, kws: Any) -> Any:
                return returns(args[0].dtype)(*(types.unliteral(kind) for kind in args))

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            found = code(_Vectors(context, builder), builder, signature.args, values)
            return context.get_dummy_value() if found is None else found

        _extending.lower_builtin(function, types.VarArg(types.Any))(generate)
        return code

    return decorate


def _signed(number: Any) -> Any:
    return types.int32 if number is types.float32 else types.int16


@_compiled(highest, _signed)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    return vectors.reduce("smax", vectors.load_bits(kinds[0], values[0]))


@_compiled(highest_negated, _signed)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    found = vectors.load_bits(kinds[0], values[0])
    return vectors.reduce("smax", builder.xor(found, vectors.sign(found)))


@_compiled(lowest_ordered, _signed)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    return vectors.reduce("smin", vectors.load_ordered(kinds[0], values[0]))


@_compiled(highest_ordered, _signed)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    return vectors.reduce("smax", vectors.load_ordered(kinds[0], values[0]))


@_compiled(truncated_levels, lambda _: types.none)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    base, factor, offset, cap = (vectors.splat(v) for v in values[1:5])
    level = builder.fadd(builder.fmul(builder.fsub(vectors.load(kinds[0], values[0]), base), factor), offset)
    level = vectors.smaller(vectors.larger(level, vectors.constant(_F32, 0.0)), cap)
    level = builder.fptosi(level, ir.VectorType(_I32, SIZE))
    vectors.put(level, values[5], kinds[6], values[6], values[7])


@_compiled(nearest_levels, lambda _: types.none)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    base, factor, bottom, top = (vectors.splat(v) for v in values[1:5])
    level = builder.fmul(factor, builder.fsub(vectors.load(kinds[0], values[0]), base))
    level = builder.bitcast(builder.fadd(level, vectors.constant(_F32, 12582912.0)), ir.VectorType(_I32, SIZE))
    level = builder.and_(level, vectors.constant(_I32, 0x7FFFFF))
    level = builder.sub(level, vectors.constant(_I32, 0x400000))
    level = builder.sub(vectors.smaller(vectors.larger(level, bottom), top), bottom)
    vectors.put(level, values[5], kinds[6], values[6], values[7])


@_compiled(transpose, lambda _: types.none)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    row = ir.VectorType(_F32, 16)
    source, at, step, target, to, to_step = (
        vectors.index(kind, v) if isinstance(kind, types.Integer) else v for kind, v in zip(kinds, values, strict=True)
    )

    def place(k: int, kind: Any, array: Any, begin: Any, step: Any) -> Any:
        offset = builder.add(begin, builder.mul(step, step.type(k)))
        number = builder.gep(vectors.pointer(kind, array, _F32), [offset])
        return builder.bitcast(number, row.as_pointer())

    def shuffled(a: Any, b: Any, mask: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, 16), mask))

    def quarters(numbers: tuple[int, ...]) -> list[int]:
        return [4 * q + n for q in range(4) for n in numbers]

    def whole_quarters(first: int, second: int) -> list[int]:
        return [4 * q + n for q in (first, second, first + 4, second + 4) for n in range(4)]

    # numbers change places inside of quarters of a row first, then quarters do: each step is one instruction of x86
    rows = [builder.load(place(k, kinds[0], source, at, step), align=4) for k in range(16)]
    for k in range(0, 16, 2):
        a, b = rows[k], rows[k + 1]
        rows[k : k + 2] = shuffled(a, b, quarters((0, 16, 1, 17))), shuffled(a, b, quarters((2, 18, 3, 19)))
    for k in range(0, 16, 4):
        a, b, c, d = rows[k : k + 4]
        low, high = quarters((0, 1, 16, 17)), quarters((2, 3, 18, 19))
        rows[k : k + 4] = shuffled(a, c, low), shuffled(a, c, high), shuffled(b, d, low), shuffled(b, d, high)
    even, odd = whole_quarters(0, 2), whole_quarters(1, 3)
    for k in range(4):
        a, b, c, d = rows[k::4]
        near, far = (shuffled(a, b, even), shuffled(c, d, even)), (shuffled(a, b, odd), shuffled(c, d, odd))
        rows[k::4] = shuffled(*near, even), shuffled(*far, even), shuffled(*near, odd), shuffled(*far, odd)
    for i, column in enumerate(rows):
        builder.store(column, place(i, kinds[3], target, to, to_step), align=4)


@_compiled(copy_16, lambda _: types.none)
def _(vectors: Any, builder: Any, kinds: Any, values: Any) -> Any:
    def place(array: int) -> tuple[Any, Any]:
        kind, number = kinds[array], vectors.index(kinds[array + 1], values[array + 1])
        element = _F32 if kind.dtype is types.float32 else _I8
        begin = builder.gep(vectors.pointer(kind, values[array], element), [number])
        return builder.bitcast(begin, ir.VectorType(element, 16).as_pointer()), element

    (source, given), (target, wanted) = place(0), place(2)
    found = builder.load(source, align=4 if given == _F32 else 1)
    if given != wanted:
        wide = ir.VectorType(_I32, 16)
        found = (
            builder.uitofp(builder.zext(found, wide), ir.VectorType(_F32, 16))
            if wanted == _F32
            else builder.trunc(builder.fptosi(found, wide), ir.VectorType(_I8, 16))
        )
    builder.store(found, target, align=4 if wanted == _F32 else 1)
