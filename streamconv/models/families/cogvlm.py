"""CogVLM: Llama with a second set of weights in every layer, for the places of an image."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..names import why_not_of_text
from . import llama


def why_not(name: str) -> str | None:
    """Why a tensor is not of the text model, to which the weights for images belong (the reference leaves them out)."""
    return None if ".vision_expert_" in name or ".mlp.vision_mlp." in name else why_not_of_text(name)


def heads(_: object, c: Config) -> tuple[int, ...]:
    """Runtimes know as many keys as queries only."""
    return (c.n_heads,)


FAMILY = replace(
    llama.FAMILY,
    arch="cogvlm",
    architectures=("CogVLMForCausalLM",),
    classes={},
    assumes={**GATED_SILU, "num_multi_query_heads": Assumed(heads), "num_key_value_heads": Assumed(heads)},
    idle=("template_version",),
    why_not=why_not,
    transforms={},
)
