"""Kimi K3: Kimi Linear with scores of what earlier layers gave, experts between two projections, and an activation of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import Product, Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..rules import Rule, experts
from ..tokenizers import KIMI_LINEAR
from ..tokenizers.brought_along import template_where_none
from ._blocks import as_blocks, counts_as_blocks
from ._kda import TRANSFORMS, full_layers, gate_bound, sizes, spelled
from ._mla import KV_B, latent
from ._stated import MIXTURE, flags, numbers, reals

_LAYER = "model.layers.{bid}"
_MOE = f"{_LAYER}.block_sparse_moe"
_EXPERTS = experts(f"{_MOE}.experts", gate="w1", down="w2", up="w3")


def gates(target: str, full: bool) -> Rule:
    """What one name means in either kind of layers."""

    def holds(c: Config, block: int) -> bool:
        kinds = full_layers(c)
        return 0 <= block < len(kinds) and kinds[block] is full

    return Rule((f"blk.{{bid}}.{target}.weight",), (f"{_LAYER}.self_attn.g_proj.weight",), when=holds)


def template(m: Metadata, _a: str, _c: Config) -> None:
    """The chat template, as the model is published without one."""
    template_where_none(m, "kimi-k3")


def score(source: str, target: str) -> Rule:
    """A norm's weights and a projection to one number, which are only used as their product."""

    def make(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
        norm, projection = rows
        return [Product(norm, Reshaped(projection, norm.shape))]

    return Rule((f"{target}.weight",), (f"{source}_norm.weight", f"{source}_proj.weight"), make)


FAMILY = Family(
    arch="kimi-k3",
    named_as="kimi-linear",
    architectures=("KimiK3ForConditionalGeneration",),
    tokenizer=replace(KIMI_LINEAR, end_from_config=True),  # the end is that of a turn
    assumes={
        "hidden_act": Assumed(("situ",), null=True), "mla_use_nope": Assumed((True,), null=True),
        "moe_router_activation_func": Assumed(("sigmoid",), null=True), "moe_layer_freq": Assumed((1,)),
        "num_expert_group": Assumed((1,)), "partial_rotary_factor": Assumed((1,)),
    },
    idle=("use_grouped_topk", "head_dim"),
    keys=(
        *BASE, vocab_size, latent, sizes(full_layers), gate_bound, MIXTURE,
        reals({"expert_weights_scale": "routed_scaling_factor"}),
        flags({"expert_weights_norm": "moe_renormalize"}), numbers({"expert_latent_length": "routed_expert_hidden_size"}),
        reals({"activation.situ_beta": "activation_situ_beta", "activation.situ_linear_beta": "activation_situ_linear_beta"}),
        numbers({"attn_res.block_size": "attn_res_block_size"}), counts_as_blocks,
    ),
    token_keys=(template,),
    spelled=spelled,
    drops={"mm_projector.*": "not part of the text model"},
    kept=("MXFP4",),
    names={f"{_MOE}.routed_expert_{source}": f"blk.{{bid}}.ffn_routed_{target}" for source, target in (
        ("down_proj", "down"), ("up_proj", "up"), ("norm", "norm"),
    )},
    rules=(
        as_blocks(_EXPERTS), _EXPERTS, KV_B, gates("ssm_g", False), gates("attn_gate", True),
        score(f"{_LAYER}.self_attention_res", "blk.{bid}.attn_res_score"), score(f"{_LAYER}.mlp_res", "blk.{bid}.ffn_res_score"),
        score("model.output_attn_res", "output_res_score"),
    ),
    transforms=TRANSFORMS,
)  # fmt: skip
