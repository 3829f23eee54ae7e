"""Vectors as values inside kernels: for what LLVM does not make of a loop, such as table lookups and the place of a maximum.

A ``Vector`` has a fixed number of lanes of float32, int32 or bool. ``+ - * / & | ^ << >>`` and comparisons work lane by lane, a
scalar beside a vector stands for that value in all lanes. Every operation is the IEEE operation of its lanes, in the order
written; processors with shorter registers take several of them, so results are the same everywhere.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as make_intrinsic
from numba.extending import register_model

_I32 = ir.IntType(32)


def intrinsic(function: Callable[..., Any]) -> Any:
    """What kernels call with all arguments but the first."""
    return make_intrinsic(function)


class Vector(types.Type):
    """``n`` lanes of a scalar type."""

    def __init__(self, element: types.Type, n: int) -> None:
        self.element, self.n = element, n
        super().__init__(name=f"Vector({element} x {n})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        element = manager[fe_type.element].get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.n))  # type: ignore[no-untyped-call]


def _splat(builder: Any, value: Any, n: int) -> Any:
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, n), [0] * n))


# -- operators -----------------------------------------------------------------------------------------------------

_ARITHMETIC = {
    operator.add: ("fadd", "add"),
    operator.sub: ("fsub", "sub"),
    operator.mul: ("fmul", "mul"),
    operator.truediv: ("fdiv", None),
    operator.and_: (None, "and_"),
    operator.or_: (None, "or_"),
    operator.xor: (None, "xor"),
    operator.lshift: (None, "shl"),
    operator.rshift: (None, "ashr"),
}
_COMPARISONS = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}


def _vector_of(args: tuple[Any, ...]) -> Vector | None:
    """The vector type of an operation on ``args``: two equal vectors or a vector and a scalar."""
    if len(args) != 2:
        return None
    vectors = [a for a in args if isinstance(a, Vector)]
    same = len(set(vectors)) == 1 and all(isinstance(a, (Vector, types.Number)) for a in args)
    return vectors[0] if same else None


def _register(op: Any, result: Any, emit: Any) -> None:
    @infer_global(op)  # type: ignore[no-untyped-call]
    class _Typing(AbstractTemplate):
        def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
            v = _vector_of(args)
            if v is None:
                return None
            taken = (a if isinstance(a, Vector) else v.element for a in args)
            return signature(result(v), *taken)  # type: ignore[no-untyped-call]

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        n = next(a.n for a in sig.args if isinstance(a, Vector))
        element = next(a.element for a in sig.args if isinstance(a, Vector))
        wide = [v if isinstance(t, Vector) else _splat(builder, v, n) for t, v in zip(sig.args, args, strict=True)]
        return emit(builder, element, *wide)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pair)(lower)  # type: ignore[no-untyped-call]


def _arithmetic(names: tuple[str | None, str | None]) -> Any:
    return lambda builder, element, a, b: getattr(builder, str(names[not isinstance(element, types.Float)]))(a, b)


def _comparison(sign: str) -> Any:
    def emit(builder: Any, element: Any, a: Any, b: Any) -> Any:
        if not isinstance(element, types.Float):
            return builder.icmp_signed(sign, a, b)
        return builder.fcmp_unordered(sign, a, b) if sign == "!=" else builder.fcmp_ordered(sign, a, b)

    return emit


for _op, _names in _ARITHMETIC.items():
    _register(_op, lambda v: v, _arithmetic(_names))
for _op, _sign in _COMPARISONS.items():
    _register(_op, lambda v: Vector(types.boolean, v.n), _comparison(_sign))


# -- memory and lanes ----------------------------------------------------------------------------------------------


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any, n: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    place = builder.gep(data, [at])
    return builder.bitcast(place, ir.VectorType(element, n).as_pointer())


def _loader(n: int) -> Any:
    @intrinsic
    def load(typing: Any, array: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load(_address(context, builder, sig.args[0], args[0], args[1], n), align=4)

        return Vector(array.dtype, n)(array, types.intp), code

    load.__doc__ = f"The {n} values from ``array[at]`` on."
    return load


load16, load32 = _loader(16), _loader(32)


@intrinsic
def store(typing: Any, array: Any, at: Any, v: Any) -> Any:
    """Put the lanes of ``v`` into ``array`` from ``array[at]`` on."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = _address(context, builder, sig.args[0], args[0], args[1], sig.args[2].n)
        builder.store(args[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, v), code


@intrinsic
def spread(typing: Any, value: Any, like: Any) -> Any:
    """``value`` in as many lanes as ``like`` has."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], sig.args[1].n)

    value = types.unliteral(value)  # type: ignore[no-untyped-call]
    return Vector(value, like.n)(value, like), code


@intrinsic
def choose(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """Lane by lane ``a`` where ``mask``, else ``b``."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, b), code


@intrinsic
def to_floats(typing: Any, v: Any) -> Any:
    """int32 lanes as float32."""
    result = Vector(types.float32, v.n)

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], context.get_value_type(result))

    return result(v), code


def _reinterpreted(element: types.Type) -> Any:
    @intrinsic
    def view(typing: Any, v: Any) -> Any:
        result = Vector(element, v.n)

        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(result))

        return result(v), code

    return view


#: the bit patterns of lanes
as_ints, as_floats = _reinterpreted(types.int32), _reinterpreted(types.float32)


@intrinsic
def roots(typing: Any, v: Any) -> Any:
    """Square roots of float32 lanes."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(args[0].type, [args[0].type])
        return builder.call(_external(builder, f"llvm.sqrt.v{v.n}f32", kind), args)

    return v(v), code


@intrinsic
def lane_bits(typing: Any, mask: Any) -> Any:
    """The lanes of ``mask`` as the low bits of an int64."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.n)), ir.IntType(64))

    return types.int64(mask), code


@intrinsic
def first_bit(typing: Any, v: Any) -> Any:
    """The number of the lowest bit set in int64 ``v``, 64 for none."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), code


@intrinsic
def count_bits(typing: Any, v: Any) -> Any:
    """How many bits of int64 ``v`` are set."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), code


@intrinsic
def shift_lanes(typing: Any, v: Any) -> Any:
    """Lane ``i`` of the result is lane ``i - 1`` of ``v``; lane 0 stays."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        order = ir.Constant(ir.VectorType(_I32, v.n), [0, *range(v.n - 1)])
        return builder.shuffle_vector(args[0], args[0], order)

    return v(v), code


def _folded(sign: str) -> Any:
    @intrinsic
    def fold(typing: Any, v: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            whole, n = args[0], v.n
            while n > 1:
                n //= 2
                parts = [
                    builder.shuffle_vector(whole, whole, ir.Constant(ir.VectorType(_I32, n), list(range(k, k + n))))
                    for k in (0, n)
                ]
                # a comparison and a choice, unlike fmax, say what NaN does and are one instruction
                compare = builder.fcmp_ordered if isinstance(v.element, types.Float) else builder.icmp_signed
                whole = builder.select(compare(sign, *parts), *parts)
            return builder.extract_element(whole, _I32(0))

        return v.element(v), code

    return fold


#: the largest and the least of the lanes; any of them where one is NaN
largest_lane, least_lane = _folded(">"), _folded("<")


@intrinsic
def look_up(typing: Any, table: Any, index: Any) -> Any:
    """``table[index & 15]`` of 16 lanes each, float32 and int32."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values, places = args
        if "+avx512f" in context.codegen()._tm_features:
            kind = ir.FunctionType(values.type, [values.type, places.type])
            return builder.call(_external(builder, "llvm.x86.avx512.permvar.sf.512", kind), args)
        low = builder.and_(places, ir.Constant(places.type, [7] * 16))
        halves = [_permuted(builder, values, low, k) for k in (0, 8)]
        upper = builder.icmp_unsigned("!=", builder.and_(places, _wide(8)), _wide(0))
        return builder.select(upper, halves[1], halves[0])

    return table(table, index), code


def _external(builder: Any, name: str, kind: Any) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def _wide(value: int) -> Any:
    return ir.Constant(ir.VectorType(_I32, 16), [value] * 16)


def _permuted(builder: Any, values: Any, places: Any, start: int) -> Any:
    """Lanes ``start + places`` of ``values``, made of pieces of eight lanes, which LLVM recognizes as permutations."""
    eight = ir.VectorType(_I32, 8)
    half = builder.shuffle_vector(values, values, ir.Constant(eight, list(range(start, start + 8))))
    pieces = []
    for first in (0, 8):
        order = builder.shuffle_vector(places, places, ir.Constant(eight, list(range(first, first + 8))))
        piece = ir.Constant(ir.VectorType(ir.FloatType(), 8), ir.Undefined)
        for k in range(8):
            value = builder.extract_element(half, builder.extract_element(order, _I32(k)))
            piece = builder.insert_element(piece, value, _I32(k))
        pieces.append(piece)
    return builder.shuffle_vector(*pieces, ir.Constant(ir.VectorType(_I32, 16), list(range(16))))
