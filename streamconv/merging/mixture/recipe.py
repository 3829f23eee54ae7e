"""What a recipe of a mixture says, before any model is opened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BadInput
from ..keys import mapping, nearest, sequence
from ..references import ModelRef
from .targets import TARGETS

if TYPE_CHECKING:
    from ..parse import Parser

_KEYS = ("base_model", "gate_mode", "experts", "shared_experts", "experts_per_token", "dtype", "architecture")
_EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale")
_RANDOM = ("random", "uniform_random")
_GATES = (*_RANDOM, "cheap_embed", "hidden", "hidden_last", "hidden_avg")


@dataclass(frozen=True)
class Expert:
    """One expert.

    Attributes
    ----------
    positive, negative : prompts that its row of the gate points to, and away from
    noise : standard deviation of what is added to its weights
    residual : what its output is multiplied by
    """

    model: ModelRef
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    noise: float = 0.0
    residual: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """One document.

    Attributes
    ----------
    where : what it is, for messages
    text : the document as written
    gate : one of ``_GATES``; those that are not random need prompts of every expert
    experts, shared : the experts behind the gate, and those that always take part
    per_token : how many experts a token gets
    dtype : precision of the output, ``F32``, ``F16`` or ``BF16``; None: the smallest that holds all inputs
    architecture : start of the name of the target, or None
    name : how other documents refer to it
    """

    where: str
    text: str
    base: ModelRef
    gate: str
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...]
    per_token: int
    dtype: str | None
    architecture: str | None
    name: str | None = None

    @property
    def is_random(self) -> bool:
        """Whether the gate needs no prompts."""
        return self.gate in _RANDOM

    def references(self) -> Iterator[ModelRef]:
        """All models, the base first."""
        yield self.base
        for expert in (*self.experts, *self.shared):
            yield expert.model


def parse_mixture(parser: Parser, value: Mapping[str, Any], text: str, named: bool) -> Mixture:
    """The mixture in ``value``; ``named``: it may have a ``name``, being one of several documents.

    Raises
    ------
    BadInput : it is malformed; names the key
    """
    where = parser.where
    top = mapping(value, where)
    parser.check(top, (*_KEYS, "name") if named else _KEYS, where)
    base = parser.reference(top.get("base_model"), "base_model")
    if base is None:
        raise BadInput(f"{where}: base_model is missing", "Attention and embeddings are taken from it.")
    gate = _gate(where, top.get("gate_mode", "hidden"))
    experts = _experts(parser, top["experts"], "experts", gate)
    if top.get("shared_experts"):
        shared = _experts(
            parser, top["shared_experts"], "shared_experts", "random"
        )  # few architectures have a gate for them
    else:
        shared = ()
    per_token = top.get("experts_per_token", 2)
    if type(per_token) is not int or not 1 <= per_token <= len(experts):
        raise BadInput(
            f"{where}: experts_per_token: {per_token!r} is not a number from 1 to {len(experts)}, the number of experts",
            "It is 2 unless the recipe says otherwise.",
        )
    architecture = top.get("architecture")
    if architecture is not None and not (
        isinstance(architecture, str) and any(name.startswith(architecture.lower()) for name in TARGETS)
    ):
        raise BadInput(f"{where}: architecture: unknown {architecture!r}", nearest(str(architecture), TARGETS))
    if len(experts) & (len(experts) - 1):
        parser.warnings.append(f"{where}: {len(experts)} experts are not a power of two, which some runtimes expect")
    return Mixture(
        where=where,
        text=text,
        base=base,
        gate=gate,
        experts=experts,
        shared=shared,
        per_token=per_token,
        dtype=parser.dtype(top, "dtype"),
        architecture=None if architecture is None else architecture.lower(),
        name=parser.name(top.get("name")),
    )


def _gate(where: str, gate: Any) -> str:
    if not isinstance(gate, str) or gate not in _GATES:
        raise BadInput(f"{where}: unknown gate_mode {gate!r}", nearest(str(gate), _GATES))
    return gate


def _experts(parser: Parser, value: Any, key: str, gate: str) -> tuple[Expert, ...]:
    return tuple(
        _expert(parser, entry, f"{key}[{i}]", gate) for i, entry in enumerate(sequence(value, f"{parser.where}: {key}"))
    )


def _expert(parser: Parser, value: Any, place: str, gate: str) -> Expert:
    where = f"{parser.where}: {place}"
    body = mapping(value, where)
    parser.check(body, _EXPERT_KEYS, where)
    model = parser.reference(body.get("source_model"), f"{place}.source_model")
    if model is None:
        raise BadInput(f"{where}: the expert names no source_model")
    positive = _prompts(body.get("positive_prompts"), f"{where}.positive_prompts")
    if gate not in _RANDOM and not positive:
        raise BadInput(
            f"{where}: no positive_prompts, from which gate_mode {gate} is computed",
            "Add some, or use gate_mode: random.",
        )
    return Expert(
        model,
        positive,
        _prompts(body.get("negative_prompts"), f"{where}.negative_prompts"),
        _number(body.get("noise_scale"), 0.0, f"{where}.noise_scale"),
        _number(body.get("residual_scale"), 1.0, f"{where}.residual_scale"),
    )


def _prompts(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadInput(f"{where}: expected a list of texts", 'Write ["TEXT", ...].')
    return tuple(text for text in value if text)


def _number(value: Any, default: float, where: str) -> float:
    if value is None:
        return default
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {value!r} is not a number", "Write one such as 0.5.") from None
    if not math.isfinite(number):
        raise BadInput(f"{where}: {value!r} is not a finite number")
    return number
