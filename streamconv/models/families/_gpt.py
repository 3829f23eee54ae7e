"""What GPT 2 and the models after it have in common: networks four times as wide, gelu, fused queries, keys and values."""

from __future__ import annotations

from ...kit import Order, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config

#: runtimes compute gelu by its approximation, which the exact one hardly differs from
GELU = Assumed(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu"))


def quadruple(m: Metadata, a: str, c: Config) -> None:
    """Width of the network, which is not stated."""
    m.u32(f"{a}.feed_forward_length", 4 * c.hidden)


def head_count_of_all(m: Metadata, a: str, c: Config) -> None:
    """As many key/value heads as heads."""
    m.u32(f"{a}.attention.head_count_kv", c.n_heads)


def one_kv_head(m: Metadata, a: str, c: Config) -> None:
    """One key/value head for all heads."""
    m.u32(f"{a}.attention.head_count_kv", 1)


def qkv_of_heads(rows: Rows, c: Config) -> Rows:
    """Queries of all heads, then their keys, then their values; stored head by head. Rows of a matrix, or a bias."""
    width = rows.shape[0] // max(3 * c.n_heads, 1)
    if rows.shape[0] != 3 * c.n_heads * width:
        raise ValueError(f"{rows.shape[0]} rows are not those of {c.n_heads} heads")
    return take(rows, Order((3, c.n_heads, width), (width, 3 * width, 1)))
