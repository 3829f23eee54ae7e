"""Parameter settings: scalars, gradients over the layers, and values that apply to some tensors only.

    setting := scalar | [scalar, ...] | {value, filter?} | [{value, filter?}, ...]      value := scalar | [scalar, ...]

Of conditional entries the first whose filter matches decides; a filter is ``*`` or a plain, case-sensitive substring of the
tensor's name. A list of scalars is a gradient: ``t`` runs from 0 at a slice's first layer to 1 at its last, numbers are
interpolated linearly, other scalars are picked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import BadInput
from .keys import check_keys

Scalar = float | int | bool | str | None
Kind = Literal["float", "int", "bool"]

_GRAMMAR = "Write a number, a list of numbers over the layers, or entries {filter: NAME_PART, value: NUMBER}."
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}


@dataclass(frozen=True)
class Condition:
    """``value`` for tensors whose name contains ``filter`` (None: for all); a tuple is a gradient."""

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None

    def matches(self, name: str) -> bool:
        """Whether it applies to the tensor ``name``."""
        return self.filter is None or self.filter == "*" or self.filter in name


@dataclass(frozen=True)
class Setting:
    """What a recipe says about one parameter in one place.

    Attributes
    ----------
    where : the place, for messages
    conditions : in order; the first match decides
    """

    where: str
    conditions: tuple[Condition, ...]

    def evaluate(self, name: str, t: float, kind: Kind) -> float | int | bool | None:
        """The value for tensor ``name`` at ``t`` (0 … 1) of the layer stack; None when nothing is set for it.

        Raises
        ------
        BadInput : the value is no ``kind``
        """
        for condition in self.conditions:
            if condition.matches(name):
                return self._value(condition.value, t, kind)
        return None

    def _value(self, value: Scalar | tuple[Scalar, ...], t: float, kind: Kind) -> float | int | bool | None:
        if not isinstance(value, tuple):
            return None if value is None else self._coerce(value, kind)
        if not value:
            return None
        at = t * (len(value) - 1)
        low = math.floor(at)
        if kind == "bool":
            return self._coerce(value[low], kind)
        # whatever reads as a number is interpolated, YAML's text "1e-3" too
        a, b = (self._coerce(v, "float") for v in (value[low], value[min(low + 1, len(value) - 1)]))
        return self._coerce((1 - (at - low)) * a + (at - low) * b, kind)

    def _coerce(self, value: Scalar, kind: Kind) -> float | int | bool:
        """``value`` as ``kind``; YAML reads 1e-3 as text, so text that is a number is one."""
        if kind == "bool":
            found = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
            if found is None:
                raise BadInput(f"{self.where}: {value!r} is neither true nor false", "Write true or false.")
            return found
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise BadInput(f"{self.where}: {value!r} is not a number", _GRAMMAR) from None
        if not math.isfinite(number):
            raise BadInput(f"{self.where}: {value!r} is not a finite number", "Write it out, or as 1e-3.")
        if kind == "float":
            return number
        if number != int(number):
            raise BadInput(
                f"{self.where}: {number:g} is not an integer", "Write a whole number; it is not interpolated."
            )
        return int(number)


def parse_setting(value: Any, where: str, lenient: bool, warnings: list[str]) -> Setting:
    """One setting as it stands in a recipe; BadInput where it does not follow the grammar.

    >>> parse_setting([0, 1], "parameters.t", False, []).evaluate("model.norm.weight", 0.25, "float")
    0.25
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return Setting(where, (Condition(_scalar(value, where)),))
    if not any(isinstance(entry, Mapping) for entry in value):
        return Setting(where, (Condition(tuple(_scalar(v, f"{where}[{i}]") for i, v in enumerate(value))),))
    conditions = []
    for i, entry in enumerate(value):
        place = f"{where}[{i}]"
        if not isinstance(entry, Mapping):
            raise BadInput(f"{place}: a list holds either numbers or entries with value and filter, not both", _GRAMMAR)
        check_keys(entry, ("value", "filter"), place, lenient, warnings)
        if "value" not in entry:
            raise BadInput(f"{place}: the entry has no value", "Write {filter: NAME_PART, value: NUMBER}.")
        wanted = entry.get("filter")
        if wanted is not None and not isinstance(wanted, str):
            raise BadInput(f"{place}.filter: {wanted!r} is not text", "Write a part of tensor names, in quotes.")
        found = entry["value"]
        if isinstance(found, list):
            parsed: Scalar | tuple[Scalar, ...] = tuple(_scalar(v, f"{place}.value[{j}]") for j, v in enumerate(found))
        else:
            parsed = _scalar(found, f"{place}.value")
        conditions.append(Condition(parsed, wanted))
    return Setting(where, tuple(conditions))


def _scalar(value: Any, where: str) -> Scalar:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadInput(f"{where}: {value!r} is not a number, a truth value or text", _GRAMMAR)
