"""Muse Glimmer, text: gated attention with windows in most layers, queries of one length, norms as offsets from one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...kit import Constant
from ...rows import Rows
from ..assumed import ROPE, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, final_soft_cap, sliding_window
from ..rules import Rule
from ..tokenizers import BPE
from ._glm import tokens_by_text
from ._layers import window_pattern
from ._stated import reals
from .gemma import plus_one
from .llama import interleave_k, interleave_q


def scaled_queries(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Norms of heads, whose weights are what scales queries, and the queries themselves."""
    scales = (c.real("qk_scale_factor"), 1.0)
    return [*(Constant(np.full(c.head_dim, scale, np.float32)) for scale in scales), rows[0]]


def _window_rotates(stated: object, c: Config) -> tuple[object, ...]:
    """Positions in layers with windows only, all with one base."""
    kinds = c.layer_types or [""] * c.n_layers
    theta = c.rope.get("rope_theta")
    return ([theta if kind == "sliding_attention" else 0 for kind in kinds],)


_SELF = "model.layers.{bid}.self_attn"
FAMILY = Family(
    arch="muse-glimmer",
    named_as="gemma2",
    architectures=("MuseGlimmerForConditionalGeneration",),
    tokenizer=BPE,
    classes={"muse_glimmer_text": class_defaults(
        202048, 131072, 6656, 19968, 52, 32, 2, head_dim=128, rms_norm_eps=1e-5, sliding_window=2048, qk_scale_factor=3.87,
        final_logit_softcapping=20.0, output_multiplier=1 / 26**0.5, post_norm_eps=1e-8,
        layer_types=lambda c: ["sliding_attention" if (c.n_layers - 1 - n) % 4 else "full_attention" for n in range(c.n_layers)],
    )},
    assumes={
        **ROPE, "hidden_activation": Assumed(("silu", "swish")), "hidden_act": Assumed(("silu", "swish")),
        "layer_rope_theta": Assumed(_window_rotates), "post_norm_eps": Assumed((1e-8,)),
    },
    idle=("projector_*", "out_hidden_size"),
    keys=(*BASE, final_soft_cap, reals({"logit_scale": "output_multiplier"}), sliding_window, window_pattern(4)),
    token_keys=(tokens_by_text({"eot": "<|eot|>"}, instead=True),),
    names={
        f"{_SELF}.gate_proj": "blk.{bid}.attn_gate", "lm_head": "output",
        "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.post_attention_norm",
    },
    rules=(Rule(("blk.{bid}.attn_q_norm.weight", "blk.{bid}.attn_k_norm.weight", "blk.{bid}.attn_q.weight"),
                (f"{_SELF}.q_proj.weight",), scaled_queries),),
    transforms={
        **dict.fromkeys(("attn_norm", "ffn_norm", "post_*norm"), plus_one), "attn_q": interleave_q, "attn_k": interleave_k,
    },
)  # fmt: skip
