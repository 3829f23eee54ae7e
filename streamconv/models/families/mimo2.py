"""MiMo V2: windows with key/value heads of their own number, values narrower than keys, sinks, blocks for further tokens."""

from __future__ import annotations

import re

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..names import plain_name
from ..rules import experts, rename
from ..tokenizers import BPE
from ._blocks import as_blocks, counts_as_blocks
from ._nextn import NEXTN_NAMES
from ._stated import numbers, reals
from .deepseek2 import EXPERTS_OF_MLP

_FURTHER = re.compile(r"model\.mtp\.layers\.(\d+)\.")


def further(c: Config) -> range:
    """Blocks that predict further tokens: no key says how many there are."""
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    count = max((int(m[1]) + 1 for name in names if (m := _FURTHER.match(name))), default=0)
    return range(c.n_layers, c.n_layers + count)


def spelled(name: str, c: Config) -> str:
    """``name`` with the blocks that predict further tokens behind the others."""
    name = plain_name(name)
    return _FURTHER.sub(lambda m: f"model.layers.{c.n_layers + int(m[1])}.", name)


def layers(m: Metadata, a: str, c: Config) -> None:
    """Which layers have windows, as all of the further blocks, and the key/value heads of each."""
    more = 0 if c.further == "left out" else len(further(c))
    windows = [*map(int, c.get("hybrid_layer_pattern") or [0] * c.n_layers), *[1] * more]
    m.array(f"{a}.attention.sliding_window_pattern", "INT32", windows)
    of_windows = c.integer("swa_num_key_value_heads", "num_key_value_heads")
    m.array(f"{a}.attention.head_count_kv", "INT32", [of_windows if window else c.n_kv_heads for window in windows])
    m.u32(f"{a}.block_count", c.n_layers + more)
    if more:
        m.u32(f"{a}.nextn_predict_layers", more)
    share = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int(c.head_dim * (1 if share is None else share)))
    epsilon = "layernorm_epsilon"
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", 1e-5 if c.get(epsilon) is None else c.real(epsilon))


def _as(key: str) -> Assumed:
    return Assumed(lambda _, c: (c.get(key),))


_BLOCK, _SINKS = "model.layers.{bid}", "blk.{bid}.attn_sinks.weight"
FAMILY = Family(
    arch="mimo2",
    architectures=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    tokenizer=BPE,
    further=further,
    assumes={
        **{key: value for key, value in GATED_SILU.items() if key not in ("layer_types", "partial_rotary_factor")},
        "topk_method": Assumed(("noaux_tc",)), "scoring_func": Assumed(("sigmoid",)), "norm_topk_prob": Assumed((True,)),
        "routed_scaling_factor": Assumed((1, 1.0)), "n_shared_experts": Assumed((0,)), "swa_head_dim": _as("head_dim"),
        "swa_num_attention_heads": _as("num_attention_heads"), "swa_v_head_dim": _as("v_head_dim"),
    },
    idle=("add_*_sink_bias", "attention_chunk_size", "sliding_window_size", "moe_layer_freq", "attention_projection_layout"),
    keys=(*BASE, layers, numbers({
        "attention.sliding_window": "sliding_window", "attention.value_length": "v_head_dim",
        "expert_feed_forward_length": "moe_intermediate_size",
    }), reals({"rope.freq_base_swa": "swa_rope_theta", "attention.value_scale": "attention_value_scale"}),
          counts_as_blocks),
    kept=("MXFP4",),
    spelled=spelled,
    names={
        **NEXTN_NAMES, f"{_BLOCK}.final_layernorm": "blk.{bid}.layer_output_norm",
        f"{_BLOCK}.self_attn.qkv_proj": "blk.{bid}.attn_qkv",
    },
    rules=(
        as_blocks(EXPERTS_OF_MLP), experts(f"{_BLOCK}.mlp.experts", gate="gate_proj", up="up_proj", down="down_proj"),
        rename(f"{_BLOCK}.self_attn.attention_sink_bias", _SINKS), rename(f"{_BLOCK}.self_attn.attention_sink_bias.weight", _SINKS),
    ),
)  # fmt: skip
