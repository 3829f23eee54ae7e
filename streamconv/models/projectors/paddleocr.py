"""The vision tower of PaddleOCR-VL: SigLIP for images of any size."""

from __future__ import annotations

import math

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._pixels import pixel_limits, pixels
from ._vision import epsilon, gelu, of_the_outer_class, projector, tower


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; that of an image is the side of the largest square."""
    tower(m, c, image_size=math.isqrt(pixels(c, "max")))


def why_not(name: str) -> str | None:
    """The tower and what is behind it."""
    is_own = "vision_model" in name or "mlp_AR" in name
    return None if is_own and "language_model." not in name else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` as the table has it, where the tower is in the outer ``model.``, and what is behind it is not."""
    inner = name.removeprefix("model.").removeprefix("visual.")
    return f"model.{inner}" if inner.startswith("vision_model.") else inner


FAMILY = projector(
    "paddleocr",
    ("PaddleOCRVisionModel", "PaddleOCRVLForConditionalGeneration"),
    keys=(keys, pixel_limits, gelu, epsilon("rms_norm_eps", default=1e-6)),
    section=of_the_outer_class,
    classes={"paddleocr_vl_vision": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14,
    }},
    assumes={
        "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")), "spatial_merge_size": Assumed((2,)),
        "layer_norm_eps": Assumed(lambda _, c: (c.get("rms_norm_eps") or 1e-6,), "the output has 'rms_norm_eps', or 1e-06"),
    },
    why_not=why_not,
    spelled=spelled,
    drops={
        "*packing_position_embedding*": "not used by runtimes",
        "*vision_model.head.*": "not part of the projector",
    },
)  # fmt: skip
