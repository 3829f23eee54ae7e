"""One output tensor: its parameters evaluated, its inputs put in order, its operator bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from ..rows import Rows, matrix_shape
from .inputs import common_dtype, is_whole
from .merged import CastRows, MergedRows, SameRows
from .methods import METHODS, Method, Parameter, Task
from .recipe import Parameters, Recipe


class _LeftOut(Exception):
    """The output does without this tensor."""


@dataclass(frozen=True)
class MergeOptions:
    """How a recipe is carried out.

    Attributes
    ----------
    seed : of the random methods
    stream : tells the documents of one file apart
    allow_crimes : merge models of different architectures
    """

    seed: int = 0
    stream: str = ""
    allow_crimes: bool = False


#: settings by name, the most specific place first
Rules = Sequence[Parameters]


@dataclass(frozen=True)
class Input:
    """One model's part in a tensor.

    Attributes
    ----------
    model : its reference
    rows : its tensor
    name : what filters of its own parameters look at
    rules : where its own parameters are looked up
    is_base : it is the base of the method
    """

    model: str
    rows: Rows
    name: str
    rules: Rules
    is_base: bool = False


def merged_tensor(
    recipe: Recipe, name: str, inputs: Sequence[Input], shared: Rules, t: float, options: MergeOptions
) -> Rows | None:
    """The rows of output tensor ``name``; None when it is to be left out.

    Parameters
    ----------
    inputs : at least one, all of one shape
    shared : where shared parameters are looked up
    t : place in the layers, 0 … 1

    Raises
    ------
    BadInput : a parameter is missing or makes no sense; names tensor, model and parameter
    """
    method = METHODS[recipe.method]
    if any(is_whole(i.rows.dtype) for i in inputs):
        if len({i.rows.dtype for i in inputs}) > 1:
            raise BadInput(f"tensor {name!r} is {inputs[0].rows.dtype} in {inputs[0].model}, but not in all models")
        return SameRows(name, [i.rows for i in inputs], [i.model for i in inputs])
    merged = recipe.dtype or common_dtype([i.rows.dtype for i in inputs])
    dtype = recipe.out_dtype or merged
    base = next((i for i in inputs if i.is_base), None)
    others = [i for i in inputs if not i.is_base]
    n_rows, n_cols = matrix_shape(inputs[0].rows.shape)
    try:
        only = _to_copy(method, name, base, others)
    except _LeftOut:
        return None
    if only is not None or not n_rows * n_cols:
        return _copy(only or inputs[0], dtype, recipe.dtype)
    task = Task(
        name=name,
        n_rows=n_rows,
        n_cols=n_cols,
        n_dims=len(inputs[0].rows.shape),
        models=[i.model for i in ([base] if base else []) + others],
        has_base=base is not None,
        shared={p.name: _value(p, shared, name, t, name, "") for p in method.parameters if p.scope == "shared"},
        each=[
            {p.name: _value(p, i.rules, i.name, t, name, i.model) for p in method.parameters if p.scope != "shared"}
            for i in others
        ],
        seed=options.seed,
        stream=options.stream,
    )
    if method.name == "passthrough" and task.each[0]["scale"] in (None, 1.0):
        return _copy(others[0], dtype, recipe.dtype)
    rows = [i.rows for i in ([base] if base else []) + others]
    return MergedRows(name, rows, method.bound(task), dtype, recipe.dtype, merged)


def _copy(source: Input, dtype: str, load: str | None) -> Rows:
    same = source.rows.dtype == dtype and load in (None, dtype)
    return source.rows if same else CastRows(source.rows, dtype, load)


def _to_copy(method: Method, name: str, base: Input | None, others: Sequence[Input]) -> Input | None:
    """The input to copy where there are too few to merge, or None when they can be merged.

    Too few are there for tensors that only some models have, and for methods that are content with the base alone.

    Raises
    ------
    _LeftOut : the output has no such tensor
    BadInput : the method cannot do without the others
    """
    if not others and base is not None and (method.least == 0 or method.alone != "merge"):
        return base
    if others and len(others) >= method.least and (base is not None or method.base != "required"):
        return None
    if method.alone == "copy" and len(others) == 1:
        return others[0]
    if method.alone == "base":
        if base is None:
            raise _LeftOut
        return base
    models = ", ".join(i.model for i in (*([base] if base else []), *others))
    raise BadInput(f"tensor {name!r}: only {models} has it, {method.name} needs it in more models")


def _value(parameter: Parameter, rules: Rules, own_name: str, t: float, tensor: str, model: str) -> Any:
    """The value of one parameter for one tensor and, unless it is shared, one model."""
    for level in rules:
        setting = level.get(parameter.name)
        found = None if setting is None else setting.evaluate(own_name, t, parameter.kind)
        if found is not None:
            return found
    if parameter.required:
        whose = f" of {model}" if model else ""
        raise BadInput(
            f"tensor {tensor!r}: parameter {parameter.name!r}{whose} has no value",
            f"Add parameters: {{{parameter.name}: NUMBER}} to {'the entry of that model' if model else 'the recipe'}, "
            "and an entry without filter where there are filters.",
        )
    return parameter.default
