"""PLaMo 1: eight query heads share a key head, in an order of their own; only the 13B model is known to runtimes."""

from __future__ import annotations

from ...kit import Order, take
from ...rows import Rows
from ..assumed import Assumed
from ..family import Family
from ..keys import block_count, embedding_length, feed_forward_length, file_type, head_count, rms_epsilon
from ..tokenizers import SPM
from ._stated import fixed

#: query heads that share a key head, key heads, width of a head
_SHARED, _KEYS, _WIDTH = 8, 5, 128


def order(rows: Rows, axis: int) -> Rows:
    """Heads of one key head beside each other."""
    if rows.shape != (5120, 5120):
        raise ValueError("runtimes know models 5120 wide only")
    return take(rows, Order((_KEYS, _SHARED, _WIDTH), (_WIDTH, _KEYS * _WIDTH, 1)), axis)


FAMILY = Family(
    arch="plamo",
    architectures=("PlamoForCausalLM", "PLaMoForCausalLM"),
    tokenizer=SPM,
    assumes={"n_shared_head": Assumed((_SHARED,))},
    idle=("num_key_value_heads", "max_position_embeddings", "rope_parameters.*"),
    keys=(
        block_count, embedding_length, feed_forward_length, head_count, rms_epsilon, file_type,
        fixed({"context_length": 4096, "attention.head_count_kv": _KEYS}),
    ),
    misfits=("blk.*.attn_[kv].weight",),
    transforms={"attn_q": lambda rows, _: order(rows, 0), "attn_output": lambda rows, _: order(rows, 1)},
)  # fmt: skip
