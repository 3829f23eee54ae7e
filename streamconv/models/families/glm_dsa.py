"""GLM 5: DeepSeek V3.2 with GLM's tokens, and an indexer that some layers share with the one before."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import class_defaults
from . import deepseek32
from ._glm import GLM_MOE_TOKENS


def indexers(m: Metadata, a: str, c: Config) -> None:
    """Which layers have an indexer of their own; rotated dimensions, which may be a part."""
    if isinstance(kinds := c.get("indexer_types"), list):
        m.array(f"{a}.attention.indexer.types", "BOOL", [kind == "full" for kind in kinds])
    factor = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int(c.integer("qk_rope_head_dim") * (1 if factor is None else factor)))


def owners(c: Config) -> list[str]:
    """Which layers have an indexer of their own where it is not listed: as letters say, or one in so many, or all."""
    pattern = c.get("index_topk_pattern")
    if isinstance(pattern, str):
        return ["full" if letter == "F" else "shared" for letter in pattern]
    if isinstance(pattern, list):
        return pattern
    every = max(c.integer("index_topk_freq"), 1) if c.get("index_topk_freq") is not None else 1
    offset = c.integer("index_skip_topk_offset") if c.get("index_skip_topk_offset") is not None else 2
    return ["shared" if max(n - offset + 1, 0) % every else "full" for n in range(c.n_layers)]


FAMILY = replace(
    deepseek32.FAMILY,
    arch="glm-dsa",
    named_as="",
    architectures=("GlmMoeDsaForCausalLM",),
    classes={"glm_moe_dsa": class_defaults(
        154880, 202752, 6144, 12288, 78, 64, 64, rms_norm_eps=1e-5, kv_lora_rank=512, q_lora_rank=2048, qk_rope_head_dim=64,
        qk_nope_head_dim=192, v_head_dim=256, n_routed_experts=256, num_experts_per_tok=8, n_group=1, topk_group=1,
        n_shared_experts=1, first_k_dense_replace=3, moe_intermediate_size=2048, norm_topk_prob=True, routed_scaling_factor=2.5,
        index_n_heads=32, index_head_dim=128, index_topk=2048, indexer_types=owners,
    )},
    assumes={
        **{key: value for key, value in deepseek32.FAMILY.assumes.items() if key != "partial_rotary_factor"},
        "layer_types": Assumed(
            lambda stated, _: (stated if set(stated) <= {"indexed_attention", "full_attention"} else None,)
        ),
    },
    keys=(*deepseek32.FAMILY.keys, indexers),
    token_keys=(GLM_MOE_TOKENS,),
)  # fmt: skip
