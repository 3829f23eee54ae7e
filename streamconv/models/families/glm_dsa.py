"""GLM 5: DeepSeek V3.2 with GLM's tokens, and an indexer that some layers share with the one before."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from . import deepseek32
from ._glm import GLM_MOE_TOKENS


def indexers(m: Metadata, a: str, c: Config) -> None:
    """Which layers have an indexer of their own; rotated dimensions, which may be a part."""
    if isinstance(kinds := c.get("indexer_types"), list):
        m.array(f"{a}.attention.indexer.types", "BOOL", [kind == "full" for kind in kinds])
    factor = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int(c.integer("qk_rope_head_dim") * (1 if factor is None else factor)))


FAMILY = replace(
    deepseek32.FAMILY,
    arch="glm-dsa",
    named_as="",
    architectures=("GlmMoeDsaForCausalLM",),
    assumes={
        **{key: value for key, value in deepseek32.FAMILY.assumes.items() if key != "partial_rotary_factor"},
        "layer_types": Assumed(
            lambda stated, _: (stated if set(stated) <= {"indexed_attention", "full_attention"} else None,)
        ),
    },
    keys=(*deepseek32.FAMILY.keys, indexers),
    token_keys=(GLM_MOE_TOKENS,),
)
