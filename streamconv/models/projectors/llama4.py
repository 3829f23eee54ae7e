"""The vision tower of Llama 4: features of four patches side by side, through two layers and a projection."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, gelu, per_side, projector, vision, within

_TABLE = "positional_embedding_vlm"


def shuffled(m: Metadata, _arch: str, c: Config) -> None:
    """How many features a side are put together."""
    m.u32("clip.vision.projector.scale_factor", per_side(c, "pixel_shuffle_ratio", c.get("pixel_shuffle_ratio")))


def spelled(name: str, _config: Config) -> str:
    """``name`` without the outer ``model.``; the table of positions has no suffix of its own."""
    name = name.removeprefix("model.")
    return f"{name}.weight" if name.endswith(_TABLE) else name


FAMILY = projector(
    "llama4",
    ("Llama4ForConditionalGeneration",),
    keys=(vision, epsilon("norm_eps", default=1e-5), shuffled, gelu),
    #: class defaults
    classes={"llama4_vision_model": {
        "hidden_size": 768, "intermediate_size": 5632, "num_hidden_layers": 34, "num_attention_heads": 16, "image_size": 448,
        "patch_size": 14, "norm_eps": 1e-5, "pixel_shuffle_ratio": 0.5, "hidden_act": "gelu",
    }},
    assumes={"hidden_act": Assumed(("gelu",)), "rope_theta": Assumed((10000,))},
    why_not=within("multi_modal_projector.", "vision_model."),
    spelled=spelled,
    names={"multi_modal_projector.linear_1": "mm.model.fc"},
)  # fmt: skip
