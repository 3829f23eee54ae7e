"""What config.json says of the encoding. It decides what the tensors leave open (versions, block sizes), never which of them
are encoded."""

from __future__ import annotations

import math
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from ..errors import BadInput
from ..sources.naming import shown
from ..sources.patterns import NotReadable, Patterns

#: the path of one module, not a pattern of several
_NAME = re.compile(r"\w+(\.\w+)*")
#: a place in a list, and what is said there
_Named = tuple[float, Mapping[str, Any]]


@dataclass(frozen=True)
class Scheme:
    """The section ``quantization_config``.

    Attributes
    ----------
    method : one of those a format names, or "" when nothing is said
    values : the section
    said : the method as the file spells it
    """

    method: str
    values: Mapping[str, Any]
    said: str = ""
    _patterns: Patterns = field(default_factory=Patterns, compare=False)

    def integer(self, key: str, values: Mapping[str, Any] | None = None) -> int | None:
        """The whole number ``key``, None when it is absent or null; BadInput when it is something else."""
        value = (self.values if values is None else values).get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise BadInput(f"config.json: quantization_config: {key} is {shown(str(value))}, not a whole number")
        return value

    def overrides(self, module: str) -> Mapping[str, Any]:
        """What is said of ``module`` in particular: by AutoRound's ``extra_config``, or by GPTQ's ``dynamic``, of which the first
        pattern that matches counts."""
        extra = self.values.get("extra_config")
        if isinstance(extra, Mapping):
            if isinstance(extra.get(module), Mapping):
                return cast("Mapping[str, Any]", extra[module])
            for pattern, values in extra.items():
                is_pattern = isinstance(values, Mapping) and not _NAME.fullmatch(pattern)
                if is_pattern and self._matches(f".*?(?:{pattern})", module):
                    return cast("Mapping[str, Any]", values)
        dynamic = self.values.get("dynamic")
        for pattern, values in dynamic.items() if isinstance(dynamic, Mapping) else ():
            if (
                not pattern.startswith("-:")
                and isinstance(values, Mapping)
                and self._matches(pattern.removeprefix("+:"), module)
            ):
                return values
        return {}

    def weights_of(self, module: str) -> Mapping[str, Any]:
        """compressed-tensors: the arguments of the group that ``module`` belongs to, {} when none is named for it."""
        names, patterns, by_class = self._targets
        place, named = names.get(module, (math.inf, by_class))
        for at, pattern, arguments in patterns:
            if at > place:
                break
            if self._matches(pattern, module):
                return arguments
        return named

    @cached_property
    def _targets(self) -> tuple[dict[str, _Named], list[tuple[int, str, Mapping[str, Any]]], Mapping[str, Any]]:
        """What groups are for: names and patterns, each with its place among all and its arguments; those of the first class."""
        names: dict[str, _Named] = {}
        patterns: list[tuple[int, str, Mapping[str, Any]]] = []
        by_class: Mapping[str, Any] = {}
        for group in groups_of(self.values):
            arguments, targets = group.get("weights"), group.get("targets")
            if not isinstance(arguments, Mapping) or not isinstance(targets, list):
                continue
            for target in (t for t in targets if isinstance(t, str)):
                if target.startswith("re:"):
                    patterns.append((len(names) + len(patterns), target[3:], arguments))
                else:
                    names.setdefault(target, (len(names) + len(patterns), arguments))
                    if target[:1].isupper():  # the name of a class, such as Linear
                        by_class = by_class or arguments
        return names, patterns, by_class

    def _matches(self, pattern: str, module: str) -> bool:
        try:
            return self._patterns.match(pattern, module)
        except NotReadable as e:
            raise BadInput(f"config.json: quantization_config: the pattern {shown(pattern)} {e}") from None


def first_of(*sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Sections of which the first that has a key counts; not copied, as each may be as large as a file lets it and is read for
    every module."""
    return ChainMap(*cast("tuple[dict[str, Any], ...]", sections))


def groups_of(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The groups of modules that compressed-tensors and ModelOpt list."""
    groups = values.get("config_groups")
    return [g for g in groups.values() if isinstance(g, Mapping)] if isinstance(groups, Mapping) else []
