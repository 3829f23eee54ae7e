"""Gemma 4, text: heads of two widths, embeddings of their own for layers, keys that serve as values, experts beside a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...kit import Constant
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GELU_TANH, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import (
    BASE,
    expert_feed_forward_length,
    feed_forward_length,
    final_soft_cap,
    key_value_length,
    rope_scaling,
    sliding_window,
)
from ..rules import Rule, experts, rename
from ..tokenizers import TokenizerRule
from ..tokenizers.gemma4 import read_gemma4
from ._layers import kinds, window_pattern
from .gemma import GEMMA_CLASS

_FULL, _BLOCK = "full_attention", "model.layers.{bid}."


def _of_layers(c: Config, key: str) -> dict[int, Any]:
    """What config.json says of ``key`` layer by layer."""
    stated = c.get("per_layer_config")
    layers = stated if isinstance(stated, Mapping) else {}
    return {
        int(n): layer[key] for n, layer in layers.items() if isinstance(layer, Mapping) and layer.get(key) is not None
    }


def full_head_dim(c: Config) -> int:
    """Width of a head that looks at the whole context."""
    widths = _of_layers(c, "head_dim")
    found = next((widths[n] for n, kind in enumerate(kinds(c, 6, _FULL)) if kind == _FULL and n in widths), None)
    return int(found) if found is not None else c.integer("global_head_dim") if c.get("global_head_dim") else 512


def attention(m: Metadata, a: str, c: Config) -> None:
    """Heads of both kinds, and which layers use keys and values of an earlier one."""
    for swa, width in (("", full_head_dim(c)), ("_swa", c.head_dim)):
        m.u32(f"{a}.attention.key_length{swa}", width)
        m.u32(f"{a}.attention.value_length{swa}", width)
    m.u32(f"{a}.rope.dimension_count", full_head_dim(c))
    share = c.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count_swa", int(c.head_dim * (1.0 if share is None else share)))
    m.u32(f"{a}.attention.shared_kv_layers", c.integer("num_kv_shared_layers") if c.get("num_kv_shared_layers") else 0)
    stated = _of_layers(c, "num_key_value_heads")
    if c.get("attention_k_eq_v") and c.get("num_global_key_value_heads") is not None:
        shared = c.integer("num_global_key_value_heads")
        stated = {**{n: shared for n, kind in enumerate(kinds(c, 6, _FULL)) if kind == _FULL}, **stated}
    if stated:
        heads = [int(stated.get(n, c.n_kv_heads)) for n in range(c.n_layers)]
        m.array(f"{a}.attention.head_count_kv", "INT32", heads)


def widths(m: Metadata, a: str, c: Config) -> None:
    """Width of the networks, layer by layer where they differ, and of the embeddings of layers."""
    feed_forward_length(m, a, c)
    stated = _of_layers(c, "intermediate_size")
    if c.get("use_double_wide_mlp"):
        first = c.n_layers - (c.integer("num_kv_shared_layers") if c.get("num_kv_shared_layers") else 0)
        stated = {**{n: 2 * c.integer("intermediate_size") for n in range(first, c.n_layers)}, **stated}
    if stated or c.get("use_double_wide_mlp"):
        per_layer = [int(stated.get(n, c.integer("intermediate_size"))) for n in range(c.n_layers)]
        m.array(f"{a}.feed_forward_length", "INT32", per_layer)
    of_layers = "hidden_size_per_layer_input"
    m.u32(f"{a}.embedding_length_per_layer_input", c.integer(of_layers) if c.get(of_layers) else 0)


def tokens(m: Metadata, a: str, c: Config) -> None:
    """What the files of the tokenizer do not say; of a unified model also the tokens that it must not write."""
    m.boolean("tokenizer.ggml.add_space_prefix", False)
    m.boolean("tokenizer.ggml.add_bos_token", True)
    if "Unified" in str(c.raw.get("architectures")):
        stated = (c.side("generation_config.json") or {}).get("suppress_tokens")
        m.array("tokenizer.ggml.suppress_tokens", "INT32", stated if isinstance(stated, list) else [])


def _frequencies(_rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Divisors of the frequencies of a full head: those of its dimensions that do not rotate are huge."""
    width, share = full_head_dim(c), c.rope.get("partial_rotary_factor")
    n_rotated = int((1.0 if share is None else share) * width / 2)
    return [Constant(np.where(np.arange(width // 2) < n_rotated, 1, 1e30).astype(np.float32))]


FREQUENCIES = Rule(("rope_freqs.weight",), make=_frequencies)


def defaults(**more: Any) -> dict[str, Any]:
    """Class defaults."""
    return class_defaults(
        262144, 131072, 2304, 9216, 30, 8, 4, head_dim=256, hidden_act=None, sliding_window=512, rope_parameters={
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}, **GEMMA_CLASS, **more,
    )  # fmt: skip


FAMILY = Family(
    arch="gemma4",
    architectures=("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration"),
    tokenizer=TokenizerRule(("gemma4",), own={"gemma4": ("tokenizer.json", read_gemma4)}),
    classes={
        "gemma4_text": defaults(hidden_size_per_layer_input=256),
        "gemma4_unified_text": {**defaults(), "max_position_embeddings": 262144, "sliding_window": 1024},
    },
    assumes={
        **{key: GELU_TANH[key] for key in ("hidden_activation", "attention_bias")}, "rope_type": Assumed(("proportional",)),
        "use_bidirectional_attention": Assumed(("vision", False)),
        "final_logit_softcapping": Assumed(
            lambda cap, _: (cap,) if cap else (), "runtimes cap logits at 30 where the output says nothing", null=True,
        ),
    },
    idle=("enable_moe_block", "vocab_size_per_layer_input", "use_ordered_embeddings", "num_centroids", "centroid_*"),
    keys=(
        *(key for key in BASE if key not in (rope_scaling, feed_forward_length, key_value_length)), widths, attention,
        final_soft_cap, sliding_window, window_pattern(6, _FULL), expert_feed_forward_length,
    ),
    token_keys=(tokens,),
    rules=(
        FREQUENCIES,
        rename(f"{_BLOCK}experts.gate_up_proj", "blk.{bid}.ffn_gate_up_exps.weight"),
        rename(f"{_BLOCK}experts.down_proj", "blk.{bid}.ffn_down_exps.weight"),
        experts(f"{_BLOCK}experts", down="down_proj", gate="gate_proj", up="up_proj"),  # as they are in NVFP4
        rename(f"{_BLOCK}layer_scalar", "blk.{bid}.layer_output_scale.weight"),
        rename(f"{_BLOCK}router.scale", "blk.{bid}.ffn_gate_inp.scale"),
        rename(f"{_BLOCK}router.per_expert_scale", "blk.{bid}.ffn_down_exps.scale"),
    ),
)  # fmt: skip
