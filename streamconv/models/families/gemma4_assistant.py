"""Draft models of Gemma 4, which read keys and values of the model they help."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import gemma4


def drafts(m: Metadata, a: str, c: Config) -> None:
    """Width of the helped model; all blocks predict further tokens."""
    m.u32(f"{a}.embedding_length_out", c.integer("backbone_hidden_size"))
    m.u32(f"{a}.nextn_predict_layers", c.n_layers)


FAMILY = replace(
    gemma4.FAMILY,
    arch="gemma4-assistant",
    architectures=("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
    keys=(*gemma4.FAMILY.keys, drafts),
    drops={"*masked_embedding*": "runtimes look through the whole vocabulary"},
    named_as="gemma4",
    names={"pre_projection": "nextn.pre_projection", "post_projection": "nextn.post_projection"},
)
