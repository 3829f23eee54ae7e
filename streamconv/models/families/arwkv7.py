"""ARWKV 7: Qwen's networks with RWKV 7's time mixing; the gate may be missing."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, feed_forward_length, file_type, rms_epsilon
from ..tokenizers import QWEN
from . import rwkv7
from ._rwkv import fused
from ._stated import fixed


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths of heads, and ranks, which are the same in all models."""
    m.u32(f"{a}.wkv.head_size", c.integer("head_size"))
    m.u32(f"{a}.attention.gate_lora_rank", 128 if c.get("wkv_has_gate") else 0)


def gated(family: Family, c: Config) -> Family:
    """Without a gate there is no mixing vector of one."""
    if c.get("wkv_has_gate"):
        return family
    without = fused([f"model.layers.{{bid}}.attention.x_{part}.weight" for part in rwkv7.MIXED[:-1]])
    return replace(family, rules=(without, *family.rules[1:]))


FAMILY = replace(
    rwkv7.FAMILY,
    arch="arwkv7",
    architectures=("RwkvHybridForCausalLM",),
    tokenizer=QWEN,
    variant=gated,
    idle=("num_attention_heads", "num_key_value_heads", "wkv_*", "hidden_act", "max_position_embeddings", "rope_parameters.*",
          "sliding_window", "use_sliding_window", "attention_*"),
    keys=(
        block_count, embedding_length, feed_forward_length, rms_epsilon, sizes, file_type, fixed({
            "context_length": 2**20, "attention.decay_lora_rank": 64, "attention.iclr_lora_rank": 64,
            "attention.value_residual_mix_lora_rank": 32, "token_shift_count": 1, "attention.head_count": 0,
        }),
    ),
    token_keys=(),
    transforms={stem: make for stem, make in rwkv7.FAMILY.transforms.items() if not stem.startswith("channel")},
)  # fmt: skip
