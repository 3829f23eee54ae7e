"""Granite with windows in most layers and sinks of attention, dense or with experts whose gates stay with what they gate."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..family import class_defaults
from ..rules import rename
from . import granite

_BLOCK = "model.layers.{bid}"


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, which layers have it, and which are rotated."""
    m.u32(f"{a}.attention.sliding_window", c.integer("sliding_window") if c.get("sliding_window") is not None else 128)
    kinds = c.get("layer_types")
    has = (
        [kind == "sliding_attention" for kind in kinds]
        if isinstance(kinds, list)
        else [n % 4 != 0 for n in range(c.n_layers)]
    )
    m.array(f"{a}.attention.sliding_window_pattern", "BOOL", has)
    if c.get("shared_intermediate_size"):
        m.u32(f"{a}.expert_shared_feed_forward_length", c.integer("shared_intermediate_size"))


FAMILY = replace(
    granite.FAMILY,
    arch="granite_swa",
    named_as="granitehybrid",
    architectures=("GraniteSWAForCausalLM", "GraniteMoeSWAForCausalLM"),
    classes={
        "granite_swa": class_defaults(
            100352, 8192, 2560, 8192, 24, 20, 4, rms_norm_eps=1e-5, tie_word_embeddings=True, sliding_window=128,
            **granite.MULTIPLIERS,
        ),
        "granitemoe_swa": class_defaults(
            32000, 2048, 4096, 11008, 32, 32, None, num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=0,
            sliding_window=128, **granite.MULTIPLIERS,
        ),
    },
    idle=(*granite.FAMILY.idle, "no_rope_layers"),
    assumes={key: value for key, value in granite.FAMILY.assumes.items() if key != "layer_types"},
    keys=(*granite.FAMILY.keys, windows),
    names={f"{_BLOCK}.block_sparse_moe.router{part}": "blk.{bid}.ffn_gate_inp" for part in ("", ".layer")},
    rules=(
        *granite.FAMILY.rules,
        rename(f"{_BLOCK}.self_attn.sinks", "blk.{bid}.attn_sinks.weight"),
        rename(f"{_BLOCK}.block_sparse_moe.experts.gate_up_proj", "blk.{bid}.ffn_gate_up_exps.weight"),
        rename(f"{_BLOCK}.block_sparse_moe.input_linear.weight", "blk.{bid}.ffn_gate_up_exps.weight"),
        rename(f"{_BLOCK}.block_sparse_moe.experts.down_proj", "blk.{bid}.ffn_down_exps.weight"),
        rename(f"{_BLOCK}.block_sparse_moe.output_linear.weight", "blk.{bid}.ffn_down_exps.weight"),
        rename(f"{_BLOCK}.shared_mlp.input_linear.weight", "blk.{bid}.ffn_up_shexp.weight"),
        rename(f"{_BLOCK}.shared_mlp.output_linear.weight", "blk.{bid}.ffn_down_shexp.weight"),
    ),
)  # fmt: skip
