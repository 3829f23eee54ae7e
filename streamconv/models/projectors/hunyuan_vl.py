"""The vision tower of HunyuanVL and HunyuanOCR, with its resampling convolutions."""

from __future__ import annotations

from ...kit import cut
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ._pixels import pixel_limits
from ._vision import F16_IN_F16, epsilon, gelu, of_the_outer_class, projector, told, tower, within


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; that of an image is the largest there may be."""
    known = c.get("image_size", "max_image_size") is not None
    tower(m, c, image_size=c.integer("image_size", "max_image_size") if known else 2048)
    merged = c.integer("spatial_merge_size") if c.get("spatial_merge_size") is not None else 2
    m.u32("clip.vision.spatial_merge_size", merged)


def without_class(rows: Rows, _config: Config) -> Rows:
    """Positions of patches, without that of the class, which is the first."""
    return cut(rows, 1, rows.shape[0])


FAMILY = projector(
    "hunyuanvl",
    ("HunYuanVLForConditionalGeneration",),
    keys=(keys, gelu, epsilon("rms_norm_eps", default=1e-5), pixel_limits),
    section=of_the_outer_class,
    classes={"hunyuan_vl_vision": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 16,
        "rms_norm_eps": 1e-5, "max_image_size": 2048, "spatial_merge_size": 2,
    }},
    assumes={"hidden_act": Assumed(("gelu",)), **told(cat_extra_token=1, interpolate_mode="bilinear")},
    why_not=within("vit."),
    transforms={"v.position_embd": without_class},
    types={"mm.[02].weight": F16_IN_F16},
)  # fmt: skip
