"""GLM 4.5 and Solar Open: experts with one that every token uses, half-rotated heads, a block that predicts a further token."""

from __future__ import annotations

from dataclasses import replace

from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from ._glm import GLM_MOE_TOKENS, rotated_dimensions, tokens_by_text
from ._nextn import COUNTED, further, stated
from ._stated import MIXTURE, WEIGHTS, fixed
from .deepseek2 import EXPERTS_OF_MLP
from .glm4 import GLM_ASSUMES

_SOLAR = tokens_by_text({"bos": "<|startoftext|>", "eos": "<|endoftext|>", "eot": "<|endoftext|>", "unknown": "<unk>"})


def named(family: Family, c: Config) -> Family:
    """Solar's special tokens are called otherwise, and no runtime drafts with it alone."""
    return replace(family, token_keys=(_SOLAR,), further=None) if "Solar" in str(c.raw.get("architectures")) else family


FAMILY = Family(
    arch="glm4moe",
    architectures=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", "SolarOpenForCausalLM"),
    tokenizer=BPE,
    classes={kind: class_defaults(
        vocabulary, 131072, 4096, 10944, 46, 96, 8, rms_norm_eps=1e-5, n_routed_experts=128, num_experts_per_tok=8, n_group=1,
        topk_group=1, n_shared_experts=1, first_k_dense_replace=1, moe_intermediate_size=1408, norm_topk_prob=True,
        routed_scaling_factor=1.0, num_nextn_predict_layers=further, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ) for kind, vocabulary, further in (("glm4_moe", 151552, 1), ("glm4v_moe_text", 151424, None))} | {"solar_open": class_defaults(
        196608, 131072, 4096, None, 48, 64, 8, head_dim=128, rms_norm_eps=1e-5, n_routed_experts=128, num_experts_per_tok=8,
        n_group=1, topk_group=1, n_shared_experts=1, moe_intermediate_size=1280, norm_topk_prob=True, routed_scaling_factor=1.0,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )},
    variant=named,
    assumes={**GLM_ASSUMES, **COUNTED},
    further=further,
    idle=("use_qk_norm", "attention_bias", "image_*", "video_*"),
    keys=(*BASE, rotated_dimensions, MIXTURE, *WEIGHTS, fixed({"expert_gating_func": 2}), stated),
    token_keys=(GLM_MOE_TOKENS,),
    rules=(EXPERTS_OF_MLP,),
)  # fmt: skip
