"""DeepSeek V2 and V3, Kimi K2 and Youtu: latent attention, and experts with some that every token uses."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, vocab_size
from ..rules import experts
from ..tokenizers import KIMI
from ._mla import KV_B, latent
from ._nextn import LEFT_OUT, trunk
from ._stated import reals

EXPERTS_OF_MLP = experts("model.layers.{bid}.mlp.experts", down="down_proj", gate="gate_proj", up="up_proj")
#: what runtimes compute in the kin
ASSUMES = {
    **GATED_SILU, "attention_bias": Assumed((False,)), "moe_layer_freq": Assumed((1,)),
    "rope_interleave": Assumed((True,)), "topk_method": Assumed(("greedy", "group_limited_greedy", "noaux_tc")),
}  # fmt: skip
IDLE = (
    "rope_parameters.mscale*",
    "ep_size",
    "seq_aux",
    "qk_head_dim",
    "head_dim",
    "mlp_layer_types",
    "num_nextn_*",
    "*_token*",
)
_LATENT = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}


def mixture(m: Metadata, a: str, c: Config) -> None:
    """Experts: from which block on there are some, their width, and how their weights are scaled."""
    dense = c.get("first_k_dense_replace")
    first = (
        (0 if c.get("n_routed_experts") is not None else c.n_layers)
        if dense is None
        else c.integer("first_k_dense_replace")
    )
    m.u32(f"{a}.leading_dense_block_count", first)
    m.u32(f"{a}.expert_feed_forward_length", c.integer("moe_intermediate_size", "intermediate_size"))
    m.u32(f"{a}.expert_shared_count", c.integer("n_shared_experts") if c.get("n_shared_experts") is not None else 0)
    if c.get("norm_topk_prob"):
        m.boolean(f"{a}.expert_weights_norm", True)


KEYS = (*BASE, vocab_size, latent, mixture, reals({"expert_weights_scale": "routed_scaling_factor"}))
FAMILY = Family(
    arch="deepseek2",
    architectures=(
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
        "YoutuForCausalLM", "YoutuVLForConditionalGeneration",
    ),
    tokenizer=KIMI,
    classes={
        "deepseek_v2": class_defaults(
            102400, 2048, 4096, 11008, 32, 32, None, **_LATENT, n_routed_experts=64, n_shared_experts=2,
            first_k_dense_replace=0, moe_intermediate_size=1407, norm_topk_prob=False, routed_scaling_factor=1.0,
        ),
        "deepseek_v3": class_defaults(
            129280, 4096, 7168, 18432, 61, 128, 128, **_LATENT, n_routed_experts=256, num_experts_per_tok=8, n_group=8,
            topk_group=4, n_shared_experts=1, first_k_dense_replace=3, moe_intermediate_size=2048, norm_topk_prob=True,
            routed_scaling_factor=2.5,
        ),
        "youtu": class_defaults(128256, 131072, 2048, 6144, 32, 16, 16, **_LATENT, tie_word_embeddings=True),
    },
    assumes=ASSUMES,
    idle=IDLE,
    keys=KEYS,
    spelled=trunk,
    drops=LEFT_OUT,
    rules=(KV_B, EXPERTS_OF_MLP),
)  # fmt: skip
