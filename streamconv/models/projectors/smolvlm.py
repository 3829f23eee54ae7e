"""The vision tower of SmolVLM and Idefics 3: SigLIP, whose features are put side by side."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, gelu, of_the_outer_class, processor, projector, side_of, vision

#: class defaults
_VISION = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16, "image_size": 224,
    "patch_size": 32, "layer_norm_eps": 1e-6,
}  # fmt: skip


def resized(m: Metadata, _arch: str, c: Config) -> None:
    """How many features are put side by side, and the longest side of an image before it is cut."""
    scale = c.raw.get("scale_factor", 2)
    m.u32("clip.vision.projector.scale_factor", scale)
    size = processor(c).get("size")
    longest = size.get("longest_edge") if isinstance(size, dict) else None
    m.u32("clip.vision.preproc_image_size", side_of(c, "image_size") if longest is None else longest)


def why_not(name: str) -> str | None:
    """The tower and what connects it."""
    is_own = any(part in name for part in ("vision_tower", "vision_model", "model.connector"))
    return None if is_own else "not part of the projector"


FAMILY = projector(
    "idefics3",
    ("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"),
    keys=(vision, epsilon("layer_norm_eps", default=1e-5), resized, gelu),
    section=of_the_outer_class,
    classes={"smolvlm_vision": _VISION, "idefics3_vision": _VISION},
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh", "gelu"))},
    why_not=why_not,
    spelled=lambda name, _config: name,
    types={"v.patch_embd.weight": "F32", "v.position_embd.weight": "F32"},
)
