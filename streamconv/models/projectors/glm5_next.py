"""The vision tower of GLM 5.3: that of GLM-4V with norms of queries and keys, whose gates are bounded."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ._vision import epsilon, gelu_or_silu, kind, of_the_outer_class, processor, projector, time_slices, vision, within

#: class defaults
_VISION = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "image_size": 336, "patch_size": 14,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "spatial_merge_size": 2, "swiglu_limit": 10.0,
}  # fmt: skip


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """The merge, the bound, and how many pixels an image may have, where its processor says how many tokens."""
    m.u32("clip.vision.spatial_merge_size", c.integer("spatial_merge_size"))
    if c.get("swiglu_limit") is not None:
        m.f32("clip.vision.swiglu_clamp", c.real("swiglu_limit"))
    said = Config({"patch_size": 14, "merge_size": 2, **processor(c)}, {}, {}, c.checkpoint)
    for end in ("min", "max"):
        if said.get(f"{end}_image_tokens") is not None:
            pixels = (
                said.integer(f"{end}_image_tokens") * (said.integer("patch_size") * said.integer("merge_size")) ** 2
            )
            if pixels >= 1 << 32:
                raise BadInput(f"{c.folder}: '{end}_image_tokens' of the image processor make {pixels} pixels")
            m.u32(f"clip.vision.image_{end}_pixels", pixels)


FAMILY = projector(
    ("glm5v",),
    ("Glm5NextForConditionalGeneration",),
    keys=(vision, kind("glm5v"), gelu_or_silu, epsilon("rms_norm_eps", default=1e-5), keys),
    section=of_the_outer_class,
    classes={"glm5_next_vision": _VISION},
    why_not=within("visual."),
    rules=(time_slices("visual.patch_embed.proj.weight"),),
)
