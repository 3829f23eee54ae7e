"""Falcon: attention and network side by side, queries, keys and values fused group by group."""

from __future__ import annotations

from ...kit import Order, join, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import block_count, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, quadruple
from .gemma import unusual_rope


def n_groups(c: Config) -> int:
    """Key/value heads: one for all heads where nothing is said of them, and in old decoders of many queries whatever is said."""
    if c.raw_value("n_head_kv") is not None:
        return c.integer("n_head_kv")
    if c.get("new_decoder_architecture"):
        return c.integer("num_kv_heads")
    return c.n_heads if c.get("multi_query") is False else 1


def attention(m: Metadata, a: str, c: Config) -> None:
    """What loaders ask for, and the heads."""
    m.u32(f"{a}.context_length", 2048)
    m.string(f"{a}.tensor_data_layout", "jploski")
    m.u32(f"{a}.attention.head_count_kv", n_groups(c))


def by_kind(rows: Rows, c: Config) -> Rows:
    """All queries, then all keys, then all values; stored with the keys and values of a group behind its queries."""
    groups, heads = n_groups(c), c.n_heads
    width = rows.shape[0] // max(heads + 2 * groups, 1)
    if heads % groups or rows.shape[0] != (heads + 2 * groups) * width:
        raise ValueError(f"{heads} heads in {groups} groups do not have {rows.shape[0]} rows")
    queries = heads // groups
    step = (queries + 2) * width
    parts = ((queries, 0), (1, queries), (1, queries + 1))
    return join([take(rows, Order((groups, n * width), (step, 1), first * width)) for n, first in parts])


FAMILY = Family(
    arch="falcon",
    architectures=("FalconForCausalLM", "RWForCausalLM"),
    tokenizer=BPE,
    classes={"falcon": class_defaults(
        65024, 2048, 4544, None, 32, 71, None, rms_norm_eps=None, layer_norm_epsilon=1e-5, multi_query=True,
        num_kv_heads=lambda c: c.n_heads, new_decoder_architecture=False, parallel_attn=True, alibi=False, hidden_act=None,
        tie_word_embeddings=True, bos_token_id=11, eos_token_id=11,
    )},
    assumes={
        "activation": GELU, "alibi": Assumed((False,)), "parallel_attn": Assumed((True,)), "bias": Assumed((False,)),
        "ffn_hidden_size": Assumed(lambda _, c: (4 * c.hidden,)), "apply_residual_connection_post_layernorm": Assumed((False,)),
        "rope_type": Assumed(("default", "linear", "yarn")),
    },
    idle=("num_ln_in_parallel_attn", "max_position_embeddings", "num_kv_heads", "new_decoder_architecture"),
    keys=(
        attention, embedding_length, quadruple, block_count, head_count, layer_norm_epsilon, unusual_rope, file_type,
    ),
    transforms={"attn_qkv": by_kind},
)  # fmt: skip
