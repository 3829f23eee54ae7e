"""Mistral 4: DeepSeek's latent attention; its experts lie stacked, gate and up in one tensor, and stay so."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from ..config import Config
from ..family import class_defaults
from ..rules import rename
from ..tokenizers import BPE
from . import deepseek2
from ._nextn import untied

_EXPERTS = "model.layers.{bid}.mlp.experts"
_SHORT = "runtimes do not make attention sharper in long texts"


def rotated_part(c: Config) -> float:
    """Which part of a head is rotated."""
    rotated = c.integer("qk_rope_head_dim")
    return rotated / max(rotated + c.integer("qk_nope_head_dim"), 1)


CLASSES = {"mistral4": class_defaults(
    131072, 1048576, 4096, 12288, 36, 32, 32, moe_intermediate_size=2048, n_shared_experts=1, n_routed_experts=128,
    routed_scaling_factor=1.0, kv_lora_rank=256, q_lora_rank=1024, qk_rope_head_dim=64, v_head_dim=128, qk_nope_head_dim=64,
    n_group=1, topk_group=1, num_experts_per_tok=4, first_k_dense_replace=0, norm_topk_prob=True, bos_token_id=1, eos_token_id=2,
    pad_token_id=11, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0, "original_max_position_embeddings": 8192, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1},
)}  # fmt: skip
FAMILY = replace(
    deepseek2.FAMILY,
    arch="mistral4",
    architectures=("Mistral4ForCausalLM",),
    tokenizer=BPE,
    classes=CLASSES,
    assumes={
        **deepseek2.ASSUMES, "partial_rotary_factor": Assumed(lambda _, c: (rotated_part(c),)),
        "llama_4_scaling_beta": Assumed((0,), _SHORT),
    },
    idle=(*deepseek2.IDLE, "rope_parameters.max_position_embeddings"),
    spelled=untied,
    rules=(
        *deepseek2.FAMILY.rules,
        rename(f"{_EXPERTS}.down_proj", "blk.{bid}.ffn_down_exps.weight"),
        rename(f"{_EXPERTS}.gate_up_proj", "blk.{bid}.ffn_gate_up_exps.weight"),
    ),
)  # fmt: skip
