"""QRWKV 6: Qwen 2's networks with RWKV's time mixing."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Reshaped, Transposed, join, split, squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..family import Family
from ..keys import block_count, counted_kv_heads, embedding_length, feed_forward_length, file_type, rms_epsilon
from ..names import plain_name
from ..rules import Rule
from ..tokenizers import QWEN
from ._rwkv import fused, suffixed

_BLOCK = "model.layers.{bid}.self_attn"
#: w, k, v, r, g among r, k, v, w, g
_ORDER = (3, 1, 2, 0, 4)


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths of heads and of what depends on the text."""
    large = c.hidden >= 4096
    m.u32(f"{a}.context_length", 2**20)
    m.u32(f"{a}.wkv.head_size", c.hidden // max(c.n_heads, 1))
    for key, name, wide, narrow in (
        ("time_mix", "lora_rank_tokenshift", 64, 32),
        ("time_decay", "lora_rank_decay", 128, 64),
    ):
        m.u32(f"{a}.{key}_extra_dim", c.integer(name) if c.get(name) else wide if large else narrow)
    m.u32(f"{a}.token_shift_count", 1)
    m.u32(f"{a}.attention.head_count", 0)


def first(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Of what comes in, five blocks of columns, which become rows in the order of runtimes."""
    transposed = Transposed(rows[0])
    parts = split(transposed, [transposed.shape[0] // 5] * 5)
    return [join([parts[n] for n in _ORDER])]


def second(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Of what goes out, five matrices, transposed."""
    transposed = Transposed(rows[0])
    parts = split(transposed, [1] * 5)
    return [Reshaped(join([parts[n] for n in _ORDER]), transposed.shape)]


FAMILY = Family(
    arch="rwkv6qwen2",
    architectures=("RWKV6Qwen2ForCausalLM",),
    tokenizer=QWEN,
    assumes={},
    idle=("attention_bias", "hidden_act", "sliding_window", "use_sliding_window", "max_position_embeddings", "rope_parameters.*"),
    keys=(block_count, embedding_length, feed_forward_length, counted_kv_heads, sizes, rms_epsilon, file_type),
    spelled=lambda name, _: suffixed(plain_name(name)),
    rules=(
        fused([f"{_BLOCK}.time_maa_{part}.weight" for part in "wkvrg"]),
        Rule(("blk.{bid}.time_mix_w1.weight",), (f"{_BLOCK}.time_maa_w1.weight",), first),
        Rule(("blk.{bid}.time_mix_w2.weight",), (f"{_BLOCK}.time_maa_w2.weight",), second),
    ),
    transforms={
        **{f"time_mix_{part}": lambda rows, _: Transposed(rows) for part in ("decay_w1", "decay_w2")},
        "time_mix_decay": lambda rows, _: squeezed(rows), "*_mix_lerp_[!f]*": lambda rows, _: squeezed(rows),
    },
)  # fmt: skip
