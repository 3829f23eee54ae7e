"""Laguna: experts behind some dense layers, gated heads whose number, window and rotation differ between layers."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, vocab_size
from ..rules import experts
from ..tokenizers import BPE
from ._stated import fixed, numbers, reals


def layers(m: Metadata, a: str, c: Config) -> None:
    """Heads of each layer, the window, rotated dimensions of both kinds, and the layers without experts."""
    heads = c.get("num_attention_heads_per_layer")
    m.array(f"{a}.attention.head_count", "INT32", heads if isinstance(heads, list) else [c.n_heads] * c.n_layers)
    if c.get("sliding_window"):
        m.u32(f"{a}.attention.sliding_window", c.integer("sliding_window"))
    for key, rope in (("dimension_count", c.rope), ("dimension_count_swa", c.rope_local)):
        factor = rope.get("partial_rotary_factor")
        m.u32(f"{a}.rope.{key}", int(c.head_dim * (1.0 if factor is None else factor)))
    kinds = c.get("mlp_layer_types") or []
    first = next((n for n, kind in enumerate(kinds) if kind != "dense"), len(kinds))
    m.u32(f"{a}.leading_dense_block_count", first)
    gates = c.get("gating_types", "gating")
    known = (None, True, "per-head", "per-element")
    if any(kind not in known for kind in (gates if isinstance(gates, list) else [gates])):
        raise BadInput(f"{c.place}: gates {gates!r} are not known", "Known are 'per-head' and 'per-element'.")


def ends(m: Metadata, _a: str, c: Config) -> None:
    """The end of the assistant's turn is a mark; of several ends the first that does not begin a text ends a turn."""
    tokens = list(m.get("tokenizer.ggml.tokens", ()))
    types = list(m.get("tokenizer.ggml.token_type", ()))
    if "</assistant>" in tokens:
        types[tokens.index("</assistant>")] = 3
        m.array("tokenizer.ggml.token_type", "INT32", types)
    text = c.checkpoint.text("chat_template.jinja") if c.checkpoint is not None else None
    if text:
        m.string("tokenizer.chat_template", text)
    stated = c.raw_value("eos_token_id")
    if isinstance(stated, list):
        turn = [n for n in stated if n != c.raw_value("bos_token_id")]
        if turn and isinstance(turn[0], int):
            m.u32("tokenizer.ggml.eot_token_id", turn[0])


FAMILY = Family(
    arch="laguna",
    named_as="deepseek2",
    architectures=("LagunaForCausalLM",),
    tokenizer=BPE,
    classes={"laguna": {**class_defaults(
        100352, 131072, 2048, 8192, 40, 48, 8, head_dim=128, sliding_window=512, num_experts=256, num_experts_per_tok=8,
        moe_intermediate_size=512, shared_expert_intermediate_size=512, moe_routed_scaling_factor=1.0, gating=True,
    ), "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
                           "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}}}},
    assumes={
        **{key: value for key, value in GATED_SILU.items() if key not in ("partial_rotary_factor", "layer_types")},
        "moe_apply_router_weight_on_input": Assumed((False,)), "moe_router_logit_softcapping": Assumed((0.0, 0)),
    },
    idle=("gating*", "mlp_layer_types", "layer_types", "norm_topk_prob", "moe_router_*", "swa_*"),
    keys=(*BASE, vocab_size, layers, fixed({"expert_weights_norm": True, "expert_gating_func": 2}), numbers({
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    }), reals({"expert_weights_scale": "moe_routed_scaling_factor"})),
    token_keys=(ends,),
    names={
        "model.layers.{bid}.self_attn.g_proj": "blk.{bid}.attn_gate",
        "model.layers.{bid}.self_attn.q_norm": "blk.{bid}.attn_q_norm",
        "model.layers.{bid}.self_attn.k_norm": "blk.{bid}.attn_k_norm",
        "model.layers.{bid}.mlp.experts.e_score_correction": "blk.{bid}.exp_probs_b",
    },
    rules=(experts("model.layers.{bid}.mlp.experts", gate="gate_proj", up="up_proj", down="down_proj"),),
)  # fmt: skip
