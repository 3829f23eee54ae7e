"""The small language of the table: sizes and conditions over integers.

An expression is made of integers, names (see ``names.py``), ``+ - * // %``, comparisons, ``and or not``, ``a if c else b`` and
``has('blk.*.NAME')``: is this tensor in the file (``has(NAME, layer)``: in that layer). All values are integers; truth is 1 or 0.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache

Names = Mapping[str, "int | None"]

_BINARY: dict[type[ast.AST], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class NotStated(Exception):
    """An expression needs a number that the file does not state."""


def evaluate(expression: str, names: Names) -> int:
    """The value of an expression; ``names`` answers for tensors too, under ``has NAME``.

    Errors: Unknown when a name stands for None, or by zero is divided.

    >>> evaluate("2 * n_ff", {"n_ff": 3}), evaluate("not n and i < 2", {"n": 0, "i": 1})
    (6, 1)
    >>> evaluate("2 if has('w') else 3", {"has w": 0})
    3
    """
    try:
        return _value(_parsed(expression), names)
    except ZeroDivisionError:
        raise NotStated(expression) from None


def truth(expression: str, names: Names) -> bool | None:
    """Whether an expression is true; None when the file does not say enough."""
    try:
        return bool(evaluate(expression, names))
    except NotStated:
        return None


def summed(expression: str, names: Names) -> Iterator[str]:
    """The names whose numbers go into the value: not those of conditions, nor of the branch that is not taken."""
    yield from _summed(_parsed(expression), names)


def _summed(node: ast.AST, names: Names) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.BinOp):
        yield from _summed(node.left, names)
        yield from _summed(node.right, names)
    elif isinstance(node, ast.IfExp):
        try:
            yield from _summed(node.body if _value(node.test, names) else node.orelse, names)
        except (NotStated, ZeroDivisionError):
            return


def _value(node: ast.AST, names: Names) -> int:
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return _known(node.id, names)
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Compare):
        return int(_BINARY[type(node.ops[0])](_value(node.left, names), _value(node.comparators[0], names)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return int(not _value(node.operand, names))
    if isinstance(node, ast.BoolOp):
        decide = all if isinstance(node.op, ast.And) else any
        return int(decide(_value(value, names) for value in node.values))
    if isinstance(node, ast.IfExp):
        return _value(node.body if _value(node.test, names) else node.orelse, names)
    if isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant):
        tensor = str(node.args[0].value)
        if node.args[1:]:
            tensor = tensor.replace("*", str(_value(node.args[1], names)))
        return _known(f"has {tensor}", names)
    raise ValueError(f"{ast.dump(node)} cannot be used in the table")


def _known(name: str, names: Names) -> int:
    found = names[name]
    if found is None:
        raise NotStated(name)
    return found


@cache
def _parsed(expression: str) -> ast.AST:
    return ast.parse(expression, mode="eval").body
