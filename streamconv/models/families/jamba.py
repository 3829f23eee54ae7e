"""Jamba: state spaces in most layers, attention in some, experts in some."""

from __future__ import annotations

from ...kit import NEGATIVE_EXP, Mapped, squeezed
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import (
    block_count,
    context_length,
    embedding_length,
    expert_counts,
    feed_forward_length,
    file_type,
    head_count,
    rms_epsilon,
)
from ..names import plain_name
from ..rules import experts
from ..tokenizers import QWEN
from ..tokenizers.files import TokenizerFiles


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Which layers have attention, and sizes of state spaces."""
    period, offset = c.integer("attn_layer_period"), c.integer("attn_layer_offset")
    rank = c.get("mamba_dt_rank")
    kv = [c.n_kv_heads if n % max(period, 1) == offset else 0 for n in range(c.n_layers)]
    m.array(f"{a}.attention.head_count_kv", "INT32", kv)
    m.u32(f"{a}.ssm.conv_kernel", c.integer("mamba_d_conv"))
    m.u32(f"{a}.ssm.inner_size", c.integer("mamba_expand") * c.hidden)
    m.u32(f"{a}.ssm.state_size", c.integer("mamba_d_state"))
    m.u32(f"{a}.ssm.time_step_rank", -(-c.hidden // 16) if rank in (None, "auto") else c.integer("mamba_dt_rank"))


def spelled(name: str, c: Config) -> str:
    """``name`` with the one network of a layer without experts as such."""
    name = plain_name(name).replace(".moe.", ".feed_forward.")
    block = name.split(".")[2] if name.startswith("model.layers.") else ""
    period, offset = c.integer("expert_layer_period"), c.integer("expert_layer_offset")
    if block.isdecimal() and int(block) % max(period, 1) != offset:
        name = name.replace(".experts.0.", ".")
    return name


def prefix(m: Metadata, _a: str, c: Config) -> None:
    """No blank goes before a text, where the vocabulary is that of a tokenizer.json."""
    if c.checkpoint is not None and not TokenizerFiles(c.checkpoint).has("tokenizer.model"):
        m.boolean("tokenizer.ggml.add_space_prefix", False)


FAMILY = Family(
    arch="jamba",
    architectures=("JambaForCausalLM",),
    tokenizer=QWEN,
    classes={"jamba": class_defaults(
        65536, 262144, 4096, 14336, 32, 32, 8, num_experts=16, num_experts_per_tok=2, expert_layer_period=2,
        expert_layer_offset=1, attn_layer_period=8, attn_layer_offset=4, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2,
        mamba_dt_rank="auto",
    )},
    assumes={"hidden_act": Assumed(("silu",)), "mamba_proj_bias": Assumed((False,)), "sliding_window": Assumed(())},
    idle=("mamba_conv_bias", "mamba_inner_layernorms", "use_mamba*", "use_associative_scan",
          "num_logits_to_keep", "layers_block_type",
          "layers_num_experts", "rope_parameters.*"),
    token_keys=(prefix,),
    keys=(
        block_count, context_length, embedding_length, feed_forward_length, head_count, rms_epsilon, expert_counts, sizes,
        file_type,
    ),
    spelled=spelled,
    rules=(experts("model.layers.{bid}.feed_forward.experts", down="down_proj", gate="gate_proj", up="up_proj"),),
    transforms={"ssm_a": lambda rows, _: Mapped(rows, NEGATIVE_EXP), "ssm_conv1d": lambda rows, _: squeezed(rows)},
)  # fmt: skip
