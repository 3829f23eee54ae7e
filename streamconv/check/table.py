"""The table of what a loader asks for, ``loader_tensors.json``, and its small expression language."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

Names = Mapping[str, "int | None"]

_BINARY: dict[type[ast.AST], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
}


class Unknown(Exception):
    """An expression needs a number that the file does not state."""


@dataclass(frozen=True)
class Wanted:
    """One tensor, or one per layer, that a loader looks for.

    Attributes
    ----------
    name : tensor name, ``*`` for the layer
    sizes : expressions for the dimensions, fastest first; ``any`` is not checked
    condition : expression that must be true for the tensor to be looked for; empty: always
    optional : it may be absent
    """

    name: str
    sizes: tuple[str, ...]
    condition: str = ""
    optional: bool = False

    @property
    def per_layer(self) -> bool:
        """There is one in each block."""
        return "*" in self.name

    def applies(self, names: Names) -> bool | None:
        """Whether the loader looks for it; None when the file does not say enough."""
        try:
            return not self.condition or bool(evaluate(self.condition, names))
        except Unknown:
            return None

    def shape(self, names: Names) -> tuple[int | None, ...]:
        """The dimensions, None for each that cannot be told."""
        return tuple(_size(size, names) for size in self.sizes)


@dataclass(frozen=True)
class Architecture:
    """What a loader asks of one architecture.

    Attributes
    ----------
    norm_key : the epsilon that must be there
    rope : ``key``, ``default`` or ``none``; see the table
    keys : further required keys
    tensors : what it looks for
    qkv : rows of the q, k and v projections, empty where the table lists them one by one
    """

    norm_key: str
    rope: str
    keys: tuple[str, ...]
    tensors: tuple[Wanted, ...]
    qkv: tuple[str, ...]


def architecture(name: str) -> Architecture | None:
    """The table's entry for ``name``, or None."""
    entries = _document()["architectures"]
    if name not in entries:
        return None
    entry = {**entries.get(entries[name].get("like"), {}), **entries[name]}
    return Architecture(
        norm_key=f"attention.layer_norm_{'rms_' if entry['norm'] == 'rms' else ''}epsilon",
        rope=entry["rope"],
        keys=tuple(entry.get("keys", ())),
        tensors=tuple(_wanted(tensor, spec) for tensor, spec in entry["tensors"].items()),
        qkv=tuple(entry.get("qkv", ())),
    )


def pre_tokenizers() -> frozenset[str]:
    """The values of ``tokenizer.ggml.pre`` a loader knows."""
    return frozenset(_document()["pre_tokenizers"])


def evaluate(expression: str, names: Names) -> int:
    """The value of an expression over integers: ``+ - * // < >=``, ``and or not``, names and numbers.

    Errors: Unknown when a name stands for None.

    >>> evaluate("2 * n_ff", {"n_ff": 3}), evaluate("not n and i < 2", {"n": 0, "i": 1})
    (6, 1)
    """
    return _value(_parsed(expression), names)


def _value(node: ast.AST, names: Names) -> int:
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        found = names[node.id]
        if found is None:
            raise Unknown(node.id)
        return found
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Compare):
        return int(_BINARY[type(node.ops[0])](_value(node.left, names), _value(node.comparators[0], names)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return int(not _value(node.operand, names))
    if isinstance(node, ast.BoolOp):
        decide = all if isinstance(node.op, ast.And) else any
        return int(decide(_value(value, names) for value in node.values))
    raise ValueError(f"{ast.dump(node)} has no place in the table")


@cache
def _parsed(expression: str) -> ast.AST:
    return ast.parse(expression, mode="eval").body


def _size(expression: str, names: Names) -> int | None:
    if expression == "any":
        return None
    try:
        return evaluate(expression, names)
    except Unknown:
        return None


def _wanted(name: str, spec: str) -> Wanted:
    sizes, _, condition = spec.partition(" if ")
    optional = sizes.startswith("? ")
    return Wanted(name, tuple(size.strip() for size in sizes.removeprefix("? ").split(",")), condition, optional)


@cache
def _document() -> Any:
    return json.loads(resources.files(__package__).joinpath("loader_tensors.json").read_text(encoding="utf-8"))
