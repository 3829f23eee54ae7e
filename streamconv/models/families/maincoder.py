"""Maincoder: the Llama layout with norms on heads, which need no other order."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, rope_dimension_count
from ..tokenizers import BPE


def rotated(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions, where the width of a head is stated."""
    if c.get("head_dim") is not None:
        rope_dimension_count(m, a, c)


FAMILY = Family(
    arch="maincoder",
    architectures=("MaincoderForCausalLM",),
    tokenizer=BPE,
    assumes={**GATED_SILU, "use_qk_norm": Assumed((True,))},
    keys=(*BASE, rotated),
)
