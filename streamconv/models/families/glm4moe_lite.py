"""GLM 4.7 Flash: DeepSeek's latent attention and experts with GLM's tokens."""

from __future__ import annotations

from dataclasses import replace

from ..family import class_defaults
from ..tokenizers import BPE
from . import deepseek2
from ._glm import GLM_MOE_TOKENS
from ._nextn import COUNTED, counted, further, untied

FAMILY = replace(
    deepseek2.FAMILY,
    named_as="glm-dsa",
    architectures=("Glm4MoeLiteForCausalLM",),
    tokenizer=BPE,
    classes={"glm4_moe_lite": class_defaults(
        154880, 202752, 2048, 10240, 47, 20, 20, rms_norm_eps=1e-5, kv_lora_rank=512, q_lora_rank=768, qk_rope_head_dim=64,
        qk_nope_head_dim=192, v_head_dim=256, n_routed_experts=64, num_experts_per_tok=4, n_group=1, topk_group=1,
        n_shared_experts=1, moe_intermediate_size=1536, norm_topk_prob=True, routed_scaling_factor=1.8,
    )},
    assumes={**deepseek2.ASSUMES, **COUNTED},
    further=further,
    keys=(*deepseek2.KEYS, counted),
    token_keys=(GLM_MOE_TOKENS,),
    spelled=untied,
)  # fmt: skip
