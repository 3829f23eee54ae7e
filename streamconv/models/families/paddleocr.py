"""The text model of PaddleOCR-VL: ERNIE 4.5 with sections of positions."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from . import ernie4_5

FAMILY = replace(
    ernie4_5.FAMILY,
    arch="paddleocr",
    named_as="ernie4_5",
    architectures=("PaddleOCRVLForConditionalGeneration",),
    classes=dict.fromkeys(("paddleocr_vl", "paddleocr_vl_text"), ernie4_5.FAMILY.classes["ernie4_5"]),
    assumes={**ernie4_5.FAMILY.assumes, "rope_is_neox_style": Assumed((True,)), "use_3d_rope": Assumed((True,))},
    drops={"mlp_AR.*": "of the projector"},
)
