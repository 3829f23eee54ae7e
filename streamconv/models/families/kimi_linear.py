"""Kimi Linear: layers of gated delta attention among layers of latent attention without positions."""

from __future__ import annotations

from ...kit import NEGATIVE_EXP, Mapped
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..rules import experts
from ..tokenizers import KIMI_LINEAR
from ._kda import convolution, full_layers, sizes, spelled
from ._mla import KV_B, latent
from ._stated import MIXTURE, numbers, reals


def without_value_length(m: Metadata, a: str, c: Config) -> None:
    """Width of values, of which nothing is written where heads have no stated width."""
    m.remove(f"{a}.attention.value_length")
    if c.get("head_dim") is not None:
        m.u32(f"{a}.attention.value_length", c.head_dim)


def end(m: Metadata, _a: str, c: Config) -> None:
    """The end of a text is the tokenizer's, whatever config.json says."""
    text = (c.side("tokenizer_config.json") or {}).get("eos_token")
    found = [n for n, token in enumerate(m.get("tokenizer.ggml.tokens", ())) if token == text]
    if found:
        m.u32("tokenizer.ggml.eos_token_id", found[0])


FAMILY = Family(
    arch="kimi-linear",
    architectures=("KimiLinearForCausalLM", "KimiLinearModel"),
    tokenizer=KIMI_LINEAR,
    classes={"kimi_linear": {
        "vocab_size": 163840, "intermediate_size": 9216, "num_key_value_heads": 32, "rms_norm_eps": 1e-5,
        "moe_intermediate_size": 1024, "tie_word_embeddings": False, "qk_rope_head_dim": 64,
        "head_dim": lambda c: c.integer("qk_rope_head_dim"),
    }},
    assumes={
        **GATED_SILU, "mla_use_nope": Assumed((True,)), "moe_renormalize": Assumed((True,)), "moe_layer_freq": Assumed((1,)),
        "moe_router_activation_func": Assumed(("sigmoid",)), "num_expert_group": Assumed((1,)),
    },
    idle=("use_grouped_topk", "topk_group"),
    keys=(
        *BASE, vocab_size, latent, sizes(full_layers), without_value_length, MIXTURE,
        numbers({"expert_group_used_count": "topk_group"}), reals({"expert_weights_scale": "routed_scaling_factor"}),
    ),
    token_keys=(end,),
    spelled=spelled,
    rules=(KV_B, experts("model.layers.{bid}.block_sparse_moe.experts", gate="w1", down="w2", up="w3")),
    transforms={"ssm_conv1d_*": convolution, "ssm_a": lambda rows, _: Mapped(rows, NEGATIVE_EXP)},
)  # fmt: skip
