"""What config.json says of the encoding. It settles what the tensors leave open (versions, block sizes), never which of them
are encoded."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from ..sources.naming import shown
from ..sources.patterns import NotReadable, Patterns

KEYS = ("quantization_config", "compression_config")
_SECTIONS = ("text_config", "llm_config", "lm_config", "language_config", "thinker_config", "vision_config")
#: side files that older tools wrote instead of a section of config.json, and the method they imply
SIDE_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
#: packings that AutoRound names, and whose they are
_AUTO_ROUND = {
    "auto_gptq": "gptq", "auto_round:auto_gptq": "gptq", "auto_awq": "awq", "auto_round:auto_awq": "awq",
}  # fmt: skip
_FORMATS = (
    "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mixed-precision",
)  # fmt: skip


#: a place in a list, and what is said there
_Named = tuple[float, Mapping[str, Any]]


@dataclass(frozen=True)
class Scheme:
    """The section ``quantization_config``.

    Attributes
    ----------
    method : one of those a format names, or "" when nothing is said
    values : the section
    """

    method: str
    values: Mapping[str, Any]
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
        """GPTQ's ``dynamic``: what is said of ``module`` in particular; the first pattern that matches counts."""
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
        for group in _groups(self.values):
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


def read_scheme(checkpoint: Checkpoint, given: Mapping[str, Any] | None, methods: Sequence[str]) -> Scheme:
    """The scheme of ``checkpoint``; ``given`` stands in for the section of config.json, ``methods`` are those that are known.

    Raises
    ------
    BadInput : a method or format that cannot be decoded, by its name
    """
    values = given if given is not None else _section(checkpoint)
    if values is None:
        return Scheme("", {})
    method = values.get("quant_method")
    if method is None:
        method = _implied(values)
    if not isinstance(method, str):
        raise BadInput(f"{checkpoint.path}: quantization_config: quant_method is {shown(str(method))}, not a name")
    method = method.lower()
    if method in ("auto-round", "intel/auto-round"):
        packing = str(values.get("packing_format"))
        if packing not in _AUTO_ROUND:
            raise BadInput(f"{checkpoint.path}: weights packed as {shown(packing)} cannot be decoded")
        method = _AUTO_ROUND[packing]
    if method not in methods:
        raise BadInput(
            f"{checkpoint.path}: weights are stored as {shown(method)}, which cannot be decoded",
            f"Known are {', '.join(methods)}. Use the checkpoint this one was made from.",
        )
    if method == "compressed-tensors":
        _check_formats(checkpoint, values)
    return Scheme(method, values)


def first_of(*sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Sections of which the first that has a key counts; not copied, as each may be as large as a file lets it and is read for
    every module."""
    return ChainMap(*cast("tuple[dict[str, Any], ...]", sections))


def without_scheme(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as that of the decoded model."""
    clean = {key: value for key, value in config.items() if key not in KEYS}
    for name in _SECTIONS:
        section = clean.get(name)
        if isinstance(section, Mapping):
            clean[name] = {key: value for key, value in section.items() if key not in KEYS}
    return clean


def _section(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    config = checkpoint.config
    for where in (config, *(config.get(name) for name in _SECTIONS)):
        for key in KEYS:
            if isinstance(where, Mapping) and where.get(key) is not None:
                found = where[key]
                if not isinstance(found, Mapping):
                    raise BadInput(f"{checkpoint.path}: config.json: {key} is not an object")
                return found
    if not config or not checkpoint.path.is_dir():
        return None
    for name, method in SIDE_FILES.items():
        values = checkpoint.json(name)
        if values is not None:
            return {"quant_method": method, **values}
    return None


def _implied(values: Mapping[str, Any]) -> str:
    """The method of a section without a name for it."""
    if values.get("load_in_4bit") or values.get("load_in_8bit"):
        return "bitsandbytes"
    if "config_groups" in values:
        return "compressed-tensors"
    return ""


def _groups(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = values.get("config_groups")
    return [g for g in groups.values() if isinstance(g, Mapping)] if isinstance(groups, Mapping) else []


def _check_formats(checkpoint: Checkpoint, values: Mapping[str, Any]) -> None:
    for holder in (values, *_groups(values)):
        name = holder.get("format")
        if name is not None and name not in _FORMATS:
            raise BadInput(
                f"{checkpoint.path}: compressed-tensors format {shown(str(name))} cannot be decoded",
                f"Known are {', '.join(_FORMATS)}.",
            )
