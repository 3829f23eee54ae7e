"""Spark 2.5: fused queries, keys and values, gated heads, windows and another rotation in some layers."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, sliding_window, vocab_size
from ..tokenizers import QWEN


def rotation(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of both kinds of layers, and which have a window."""
    for key, rope in (("dimension_count", c.rope), ("dimension_count_swa", c.rope_local)):
        factor = rope.get("partial_rotary_factor")
        m.u32(f"{a}.rope.{key}", int(c.head_dim * (1.0 if factor is None else factor)))
    kinds = c.get("layer_types")
    if isinstance(kinds, list):
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", [kind == "sliding_attention" for kind in kinds])


FAMILY = Family(
    arch="spark2_5",
    named_as="llama",
    architectures=("Spark2_5ForCausalLM",),
    tokenizer=QWEN,
    assumes={
        "gate_attn_act_mode": Assumed(("sigmoid",)), "headwise_attn_output_gate": Assumed((True,)),
        "hidden_act": Assumed(("gelu", "gelu_pytorch_tanh", "gelu_new")),
        "layer_types": Assumed(lambda stated, c: (stated if len(stated) == c.n_layers else None,)),
    },
    keys=(*BASE, vocab_size, sliding_window, rotation),
    names={
        "model.layers.{bid}.self_attn.q_k_v_proj": "blk.{bid}.attn_qkv",
        "model.layers.{bid}.self_attn.g_proj": "blk.{bid}.attn_gate",
        "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.ffn_norm",
    },
)  # fmt: skip
