"""Fused queries, keys and values of MiMo V2 in 8-bit floats: each rank of tensor parallelism has its own rows and blocks of scales.

A plain checkpoint has all queries, then all keys, then all values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..kit import Order, join, take
from ..rows import Rows
from .grid_rows import Float8Rows, Grid
from .raw import Raw

_FUSED = re.compile(r"model\.(mtp\.)?layers\.(\d+)\.self_attn\.qkv_proj\.weight")
_RANKS = (8, 4)


class RankRows(Float8Rows):
    """Rows as they are stored, rank by rank.

    Parameters
    ----------
    sizes : rows of queries, of keys and of values in a rank
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: str, encoding: str, parts: Sequence[Raw], grid: Grid,
        scale_type: str | None, sizes: tuple[int, ...],
    ) -> None:  # fmt: skip
        super().__init__(name, shape, dtype, encoding, parts, grid, scale_type)
        self._sizes = sizes

    def as_plain(self) -> Rows:
        """The rows of all ranks together."""
        rank = sum(self._sizes)
        n = self.n_rows // rank
        orders = [Order((n, size), (rank, 1), sum(self._sizes[:i])) for i, size in enumerate(self._sizes)]
        return join([take(self, order) for order in orders])


def ranks_of(
    config: Mapping[str, Any], name: str, shape: tuple[int, ...], scale: tuple[int, ...], block: Sequence[int]
) -> tuple[Grid, tuple[int, ...]] | None:
    """How scales lie over the fused matrix ``name`` and how many rows of each kind a rank has; None for any other tensor."""
    found = _FUSED.fullmatch(name)
    if found is None or not str(config.get("model_type", "")).startswith("mimo_v2") or len(shape) != 2:
        return None
    pattern = config.get("hybrid_layer_pattern")
    place = int(found[2])
    is_full = found[1] is None and isinstance(pattern, list) and place < len(pattern) and pattern[place] == 0
    keys = config.get("num_key_value_heads" if is_full else "swa_num_key_value_heads")
    counts = (config.get("num_attention_heads"), keys, keys)
    widths = (config.get("head_dim"), config.get("head_dim"), config.get("v_head_dim"))
    sizes = [n * width for n, width in zip(counts, widths, strict=True) if type(n) is int and type(width) is int]
    if len(sizes) != 3 or sum(sizes) != shape[0]:
        return None
    for n in _RANKS:
        rows = shape[0] // n
        if not any(size % n for size in sizes) and scale == (n * -(-rows // block[0]), -(-shape[1] // block[1])):
            return Grid(block[0], min(block[1], shape[1]), rows), tuple(size // n for size in sizes)
    return None
