"""Attention over latent keys and values (MLA), as runtimes compute it: as if there were one key/value head."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Reshaped, Transposed, split
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Rule


def separate(rows: Rows, n_heads: int, keys: int, values: int) -> Sequence[Rows]:
    """What makes keys and what makes values of what is latent, head by head; that of keys transposed."""
    heads = Reshaped(rows, (n_heads, keys + values, rows.shape[-1]))
    of_keys, of_values = split(heads, (keys, values), 1)
    return [Transposed(of_keys), of_values]


def of_heads(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The same, of heads as wide as the configuration says."""
    return separate(rows[0], c.n_kv_heads, c.integer("qk_nope_head_dim"), c.integer("v_head_dim"))


KV_B = Rule(
    ("blk.{bid}.attn_k_b.weight", "blk.{bid}.attn_v_b.weight"),
    ("model.layers.{bid}.self_attn.kv_b_proj.weight",),
    of_heads,
)


def latent(m: Metadata, a: str, c: Config) -> None:
    """Widths of what is latent and of heads, which replace those of other attention."""
    rank = c.integer("kv_lora_rank") if c.get("kv_lora_rank") is not None else 512
    rotated = c.integer("qk_rope_head_dim")
    m.u32(f"{a}.attention.head_count_kv", 1)
    if c.get("q_lora_rank") is not None:
        m.u32(f"{a}.attention.q_lora_rank", c.integer("q_lora_rank"))
    m.u32(f"{a}.attention.kv_lora_rank", rank)
    m.u32(f"{a}.attention.key_length", rank + rotated)
    m.u32(f"{a}.attention.value_length", rank)
    m.u32(f"{a}.attention.key_length_mla", c.integer("qk_nope_head_dim") + rotated)
    m.u32(f"{a}.attention.value_length_mla", c.integer("v_head_dim"))
    m.u32(f"{a}.rope.dimension_count", rotated)
    yarn_log_multiplier(m, a, c)


def yarn_log_multiplier(m: Metadata, a: str, c: Config) -> None:
    """How attention gets sharper where positions are stretched."""
    if c.rope.get("mscale_all_dim"):
        m.f32(f"{a}.rope.scaling.yarn_log_multiplier", 0.1 * float(c.rope["mscale_all_dim"]))
