"""Pangu Embedded: the Llama layout with biases of attention, whose heads need no other order."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family
from ..keys import BASE, rope_dimension_count, vocab_size
from ..tokenizers import SPM_PREFIXED
from ._nextn import untied


def widths(m: Metadata, a: str, c: Config) -> None:
    """Width of a head, stated or not."""
    m.u32(f"{a}.attention.key_length", c.head_dim)
    m.u32(f"{a}.attention.value_length", c.head_dim)


FAMILY = Family(
    arch="pangu-embedded",
    architectures=("PanguEmbeddedForCausalLM",),
    tokenizer=SPM_PREFIXED,
    assumes=GATED_SILU,
    idle=("bias",),
    keys=(*BASE, vocab_size, rope_dimension_count, widths),
    spelled=untied,
    drops={"tied.*": "config.json ties it to the embedding"},
)
