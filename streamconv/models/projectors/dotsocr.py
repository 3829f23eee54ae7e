"""The vision tower of dots.ocr: gated, with RMS norms, for images of any size."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._pixels import pixel_limits
from ._vision import projector, tower, within


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; there is none of images."""
    tower(m, c, image_size=0)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.real("rms_norm_eps"))
    m.u32("clip.vision.projector.scale_factor", c.integer("spatial_merge_size"))
    m.boolean("clip.use_silu", True)


FAMILY = projector(
    "dots_ocr",
    ("DotsOCRForCausalLM",),
    keys=(keys, pixel_limits),
    assumes={"temporal_patch_size": Assumed((1,)), "post_norm": Assumed((True,)), "is_causal": Assumed((False,))},
    why_not=within("vision_tower."),
    names={
        f"vision_tower.blocks.{{bid}}.mlp.fc{n}": f"v.blk.{{bid}}.ffn_{part}"
        for n, part in ((1, "gate"), (2, "down"), (3, "up"))
    },
)
