"""MoonViT in Kimi-VL: fused queries, keys and values are split, the grid of positions is a table."""

from __future__ import annotations

from ...kit import Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, gelu, projector, thirds, tower, within

_SIDE = 64 * 14


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; images are of any."""
    tower(m, c, image_size=_SIDE)
    m.u32("clip.vision.projector.scale_factor", 2)


def as_table(rows: Rows, _config: Config) -> Rows:
    """Positions of a grid, row by row."""
    height, width, *rest = rows.shape
    return Reshaped(rows, (height * width, *rest))


FAMILY = projector(
    "kimivl",
    ("KimiVLForConditionalGeneration",),
    keys=(keys, gelu, epsilon("layer_norm_eps", default=1e-5)),
    assumes={"merge_kernel_size": Assumed(([2, 2],)), "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu"))},
    why_not=within("vision_tower.", "multi_modal_projector."),
    transforms={"v.position_embd": as_table},
    rules=thirds("vision_tower.encoder.blocks.{bid}.wqkv"),
)
