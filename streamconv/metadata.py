"""GGUF key/values in the order they will be written.

Re-adding a key keeps its first place and takes the last value; empty strings and empty arrays are left out, as the
reference writer does (gguf-py ``GGUFWriter``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from .errors import BadInput

#: GGUF value type name -> (number in the file, struct format; "" for strings and arrays)
VALUE_TYPES: dict[str, tuple[int, str]] = {
    "UINT8": (0, "B"),
    "INT8": (1, "b"),
    "UINT16": (2, "H"),
    "INT16": (3, "h"),
    "UINT32": (4, "I"),
    "INT32": (5, "i"),
    "FLOAT32": (6, "f"),
    "BOOL": (7, "?"),
    "STRING": (8, ""),
    "ARRAY": (9, ""),
    "UINT64": (10, "Q"),
    "INT64": (11, "q"),
    "FLOAT64": (12, "d"),
}


#: largest finite numbers
_MAX_FLOATS = {"FLOAT32": 3.4028234663852886e38, "FLOAT64": sys.float_info.max}


class BadValue(BadInput):
    """A value that the type of its key cannot hold."""


@dataclass(frozen=True)
class Value:
    """One typed value.

    Attributes
    ----------
    type : a name of ``VALUE_TYPES``
    value : int, float, bool, str, or a sequence of these for ``ARRAY``
    elem : element type of an array, else empty
    """

    type: str
    value: Any
    elem: str = ""


def _fits(value: Any, kind: str) -> bool:
    """Whether ``value`` is of the ``kind``, and within its range."""
    is_real, is_whole = isinstance(value, Real), isinstance(value, Integral)
    if kind in _MAX_FLOATS:
        return is_real and (bool(abs(value) <= _MAX_FLOATS[kind]) or value == -math.inf)
    if "INT" in kind:
        bits, is_signed = int(kind.lstrip("UINT")), kind.startswith("INT")
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
        return is_whole and bool(least <= value <= most)
    return True


@dataclass
class Metadata:
    """An ordered, typed dictionary of GGUF keys."""

    values: dict[str, Value] = field(default_factory=dict)

    def add(self, key: str, value: Value) -> None:
        """Set ``key``; empty strings and arrays are ignored. BadValue for a number, or one of a list, that its type cannot hold."""
        if value.type in ("STRING", "ARRAY") and not len(value.value):
            return
        # Typed arrays hold what they hold, and vocabularies are long.
        listed, kind = ([value.value], value.type) if value.type != "ARRAY" else (value.value, value.elem)
        for number in listed if isinstance(listed, list) else ():
            if not _fits(number, kind):
                raise BadValue(f"the key {key} would be {number!r:.80}, which does not fit {kind}")
        self.values[key] = value

    def u16(self, key: str, value: int) -> None:
        """Set an unsigned 16-bit integer."""
        self.add(key, Value("UINT16", int(value)))

    def u32(self, key: str, value: int) -> None:
        """Set an unsigned 32-bit integer."""
        self.add(key, Value("UINT32", int(value)))

    def i32(self, key: str, value: int) -> None:
        """Set a signed 32-bit integer."""
        self.add(key, Value("INT32", int(value)))

    def f32(self, key: str, value: float) -> None:
        """Set a 32-bit float."""
        self.add(key, Value("FLOAT32", float(value)))

    def boolean(self, key: str, value: bool) -> None:
        """Set a flag."""
        self.add(key, Value("BOOL", bool(value)))

    def string(self, key: str, value: str) -> None:
        """Set a string."""
        self.add(key, Value("STRING", value))

    def array(self, key: str, elem: str, values: Sequence[Any]) -> None:
        """Set an array of ``elem`` (a name of ``VALUE_TYPES``)."""
        self.add(key, Value("ARRAY", values, elem))

    def update(self, other: Metadata) -> None:
        """Add all values of ``other`` in its order."""
        for key, value in other.items():
            self.add(key, value)

    def remove(self, key: str) -> None:
        """Forget ``key`` if it is there."""
        self.values.pop(key, None)

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value of ``key``, or ``default``."""
        found = self.values.get(key)
        return default if found is None else found.value

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __len__(self) -> int:
        return len(self.values)

    def items(self) -> Iterator[tuple[str, Value]]:
        """Keys with their typed values, in order."""
        return iter(self.values.items())
