"""The vision tower of GLM-4V, 4.5V and GLM-OCR: gated, with norms before and after, and patches merged by a convolution."""

from __future__ import annotations

from ..assumed import Assumed
from ._vision import epsilon, gelu_or_silu, of_the_outer_class, projector, time_slices, vision, within

#: class defaults
_VISION = {
    "depth": 24, "hidden_size": 1536, "intermediate_size": 13696, "num_heads": 12, "image_size": 336, "patch_size": 14,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "spatial_merge_size": 2,
}  # fmt: skip

FAMILY = projector(
    "glm4v",
    ("Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "GlmOcrForConditionalGeneration"),
    keys=(vision, gelu_or_silu, epsilon("rms_norm_eps", default=1e-5)),
    section=of_the_outer_class,
    classes={
        "glm4v_vision": _VISION,
        "glm4v_moe_vision": _VISION,
        "glm_ocr_vision": {**_VISION, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16},
    },
    assumes={"spatial_merge_size": Assumed((2,))},
    why_not=within("visual."),
    rules=(time_slices("visual.patch_embed.proj.weight"),),
)
