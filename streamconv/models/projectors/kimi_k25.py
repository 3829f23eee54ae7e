"""MoonViT in Kimi-K2.5: queries and keys, which stay fused with the values, are ordered for split rotary pairs."""

from __future__ import annotations

from typing import Any

from ...errors import BadInput
from ...kit import Order, join, split, take
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ._pixels import limits
from ._vision import epsilon, processor, projector, side_of, tower, within

_FEWEST_PATCHES = 8


def positions(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; images are as large as the grid of positions."""
    grid = {axis: _or(c, f"init_pos_emb_{axis}", usual) for axis, usual in (("height", 64), ("width", 64), ("time", 4))}
    side = side_of(c, "patch_size")
    tower(m, c, image_size=grid["height"] * side)
    for axis, size in grid.items():
        m.u32(f"vision.pos_emb_{axis}", size)
    m.boolean("clip.use_gelu", (c.get("projector_hidden_act") or "gelu") == "gelu")
    m.u32("clip.vision.projector.scale_factor", _merge(c)[0])
    most = processor(c).get("in_patch_limit", 16384)
    if isinstance(most, bool) or not isinstance(most, int):
        raise BadInput(f"{c.folder}: the image processor's 'in_patch_limit' is {most!r}, not a number of patches")
    limits(m, _FEWEST_PATCHES * side**2, most * side**2)


def _or(c: Config, key: str, usual: int) -> int:
    return c.integer(key) if c.get(key) is not None else usual


def _merge(c: Config) -> list[Any]:
    said = c.get("merge_kernel_size") or [2, 2]
    if not isinstance(said, list) or len(said) != 2 or not isinstance(said[0], int) or said[0] != said[1]:
        raise BadInput(f"{c.place}: 'merge_kernel_size' is {said!r}, runtimes merge squares of patches")
    return said


def split_pairs(rows: Rows, c: Config) -> Rows:
    """Queries and keys with rotary pairs of rows before those of columns; values as they are."""
    n_heads = _or(c, "num_attention_heads", 16)
    third = rows.shape[0] // 3
    if third * 3 != rows.shape[0] or third % (4 * max(n_heads, 1)):
        raise ValueError(f"{rows.shape[0]} rows are not queries, keys and values of {n_heads} heads")
    width = third // n_heads
    order = Order((n_heads, 2, width // 4, 2), (width, 2, 4, 1))
    queries, keys, values = split(rows, [third] * 3)
    return join([take(queries, order), take(keys, order), values])


_NAMES = {
    "pre_norm": "mm.input_norm",
    "proj.0": "mm.1",
    "proj.2": "mm.2",
    "proj.linear_1": "mm.1",
    "proj.linear_2": "mm.2",
}

FAMILY = projector(
    "kimik25",
    ("KimiK25ForConditionalGeneration",),
    keys=(positions, epsilon("projector_ln_eps", default=1e-5)),
    assumes={
        "projector_hidden_act": Assumed(("gelu",), "runtimes compute the projection with GELU"),
        "mm_projector_type": Assumed(("patchmerger",)),
        "pos_emb_type": Assumed(("divided_fixed",)),
        "merge_type": Assumed(("sd2_tpool",)),
    },
    why_not=within("vision_tower.", "mm_projector."),
    transforms={"v.blk.*.attn_qkv": split_pairs},
    names={f"mm_projector.{theirs}": ours for theirs, ours in _NAMES.items()},
)
