"""Granite 3 mixtures: Granite with experts in fused matrices, and maybe a network that every token uses."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..family import class_defaults
from . import granite
from .granite_hybrid import FAMILY as HYBRID


def shared_width(m: Metadata, a: str, c: Config) -> None:
    """Width of the network that every token uses."""
    if c.get("shared_intermediate_size"):
        m.u32(f"{a}.expert_shared_feed_forward_length", c.integer("shared_intermediate_size"))


_DEFAULTS = class_defaults(
    32000, 2048, 4096, 11008, 32, 32, None, num_local_experts=8, num_experts_per_tok=2, bos_token_id=1, eos_token_id=2,
    **granite.MULTIPLIERS,
)  # fmt: skip
FAMILY = replace(
    granite.FAMILY,
    arch="granitemoe",
    architectures=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    classes={"granitemoe": _DEFAULTS, "granitemoeshared": _DEFAULTS},
    keys=(*granite.FAMILY.keys, shared_width),
    rules=HYBRID.rules,
)
