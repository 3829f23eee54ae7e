"""Step 3.5 and 3.7: heads, windows and rotation differ between layers; experts lie stacked; norms are offsets from one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kit import Constant
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import flattened
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, expert_counts, head_count, head_count_kv, rope_freq_base, rope_freq_base_swa, rope_scaling
from ..names import plain_name
from ..rules import Rule
from ..tokenizers import QWEN
from ._nextn import COUNTED, NEXTN_NAMES, counted, further, n_further
from ._stated import flags, numbers, reals
from .gemma import plus_one

_FULL = "full_attention"


def per_block(c: Config, name: str, default: Any) -> list[Any]:
    """A list of what every block has, filled up with ``default`` or cut to all blocks."""
    found, n = c.get(name), c.n_layers + n_further(c)
    return ([default if x is None else x for x in found] if isinstance(found, list) else [])[:n] + [default] * max(
        0, n - (len(found) if isinstance(found, list) else 0)
    )


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's keys, with the bases of all layers under a name of their own."""
    found = flattened(raw)
    bases = found.get("rope_theta")
    return {**found, "rope_theta": bases[0], "rope_thetas": bases} if isinstance(bases, list) and bases else found


def theta(c: Config, kind: int) -> float:
    """The base of RoPE of layers of the first or the second kind."""
    found = c.get("rope_thetas")
    return float(found[min(kind, len(found) - 1)]) if isinstance(found, list) and found else c.real("rope_theta")


def layers(m: Metadata, a: str, c: Config) -> None:
    """Heads, windows and rotation of each block, and bounds of experts."""
    kinds, factors = per_block(c, "layer_types", _FULL), per_block(c, "partial_rotary_factors", 0.5)
    if any(factor != (0.5 if kind == _FULL else 1.0) for kind, factor in zip(kinds, factors, strict=True)):
        raise BadInput(f"{c.place}: 'partial_rotary_factors' are not a half of full layers and 1 of others")
    other = c.get("attention_other_setting")
    sliding = replace(c, values=other if isinstance(other, dict) else {})
    for key, name in (("head_count", "num_attention_heads"), ("head_count_kv", "num_attention_groups")):
        heads = [(c if kind == _FULL else sliding).integer(name) for kind in kinds]
        m.array(f"{a}.attention.{key}", "INT32", heads)
    m.array(f"{a}.attention.sliding_window_pattern", "BOOL", [kind != _FULL for kind in kinds])
    m.f32(f"{a}.rope.freq_base", theta(c, 0))
    m.f32(f"{a}.rope.freq_base_swa", theta(c, 1))
    m.f32(
        f"{a}.attention.layer_norm_rms_epsilon", c.real("rms_norm_eps") if c.get("rms_norm_eps") is not None else 1e-5
    )
    listed = str(c.get("moe_layers_enum") or "").split(",")
    numbers_of = [int(x) for x in listed if x.strip().isdecimal()]
    m.u32(f"{a}.leading_dense_block_count", min(numbers_of, default=c.n_layers))
    for key, name in (("exp", "swiglu_limits"), ("shexp", "swiglu_limits_shared")):
        if c.get(name) is not None:
            m.array(f"{a}.swiglu_clamp_{key}", "FLOAT32", [float(x) for x in per_block(c, name, 0.0)])
    m.u32(f"{a}.moe_every_n_layers", c.integer("moe_every_n_layer") if c.get("moe_every_n_layer") is not None else 1)


def factors(_rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Divisors of the frequencies of full layers, float32[head_dim / 2]; one for those that only other layers rotate."""
    names = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192.0}
    factor, low, high, original = (replace(c, values={n: d, **c.rope}).real(n) for n, d in names.items())
    share = (c.get("partial_rotary_factors") or [0.5])[0]
    dim, found = int(c.head_dim * share), []
    if min(factor, low, original, dim) <= 0 or high <= low:
        raise BadInput(f"{c.place}: llama3 RoPE scaling with {dict(c.rope)} makes no sense")
    for n in range(0, dim, 2):
        length = 2 * math.pi * theta(c, 0) ** (n / dim)
        between = (original / length - low) / (high - low)
        found.append(1.0 if length < original / high else factor if length > original / low
                     else 1 / ((1 - between) / factor + between))  # fmt: skip
    return [Constant(np.array(found + [1.0] * (c.head_dim // 2 - len(found)), np.float32))]


def spelled(name: str, _config: Config) -> str:
    """``name`` without the class inside blocks that predict further tokens."""
    return plain_name(name).replace(".transformer.", ".").replace("shared_head.output", "shared_head.head")


_WITHOUT = (expert_counts, head_count, head_count_kv, rope_freq_base, rope_freq_base_swa, rope_scaling)
FAMILY = Family(
    arch="step35",
    architectures=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    tokenizer=QWEN,
    section=section,
    further=further,
    assumes={**COUNTED, "use_qk_norm": Assumed((True,)), "zero_centered": Assumed((True,)),
             "use_head_wise_attn_gate": Assumed((True,)),
             "hidden_act": Assumed(("silu",))},
    idle=("max_seq_len", "use_moe*", "need_fp32_gate", "sink", "att_impl_type", "yarn_only_types", "rope_parameters.*", "moe_*",
          "use_*",          "num_nextn_*"),
    keys=(
        *(key for key in BASE if key not in _WITHOUT), counted, layers, numbers({
            "attention.sliding_window": "sliding_window", "expert_count": "moe_num_experts", "expert_used_count": "moe_top_k",
            "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_feed_forward_length": "share_expert_dim",
            "attention.value_length": "head_dim",
        }), reals({"expert_weights_scale": "moe_router_scaling_factor"}), flags({"expert_weights_norm": "norm_expert_weight"}),
        lambda m, a, c: m.u32(f"{a}.expert_gating_func", 2 if c.get("moe_router_activation") == "sigmoid" else 1),
    ),
    spelled=spelled,
    names={**NEXTN_NAMES, "model.layers.{bid}.self_attn.g_proj": "blk.{bid}.attn_gate",
           "model.layers.{bid}.moe.router_bias": "blk.{bid}.exp_probs_b.bias"},
    rules=(Rule(("rope_freqs.weight",), make=factors, when=lambda c, _: c.rope.get("rope_type") == "llama3"),),
    transforms={"*norm": plus_one, "nextn.[eh]norm": plus_one},
)  # fmt: skip
