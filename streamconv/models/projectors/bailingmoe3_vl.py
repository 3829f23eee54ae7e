"""Ling 3 VL: the vision tower of Qwen 3 VL, whose merger is a norm only; the projection stands beside it."""

from __future__ import annotations

import math

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import gelu, kind, merge_size, projector, text, time_slices, vision, vision_section, within


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Epsilon, which is that of the text model."""
    c.integer("out_hidden_size")
    said = text(c).get("rms_norm_eps")
    m.f32("clip.vision.attention.layer_norm_epsilon", 1e-6 if said is None else said)


#: as the reference has it where config.json does not say
_DEFAULTS = {
    "num_position_embeddings": 2304, "patch_size": 16,
    "image_size": lambda c: int(math.sqrt(c.integer("num_position_embeddings")) * c.integer("patch_size")),
}  # fmt: skip

FAMILY = projector(
    ("ling3vl",),
    ("BailingMoeV3VLForConditionalGeneration",),
    keys=(vision, kind("ling3vl"), gelu, merge_size, keys),
    section=lambda raw: {**vision_section(raw), "model_type": "bailing_moe_v3_vl"},
    classes={"bailing_moe_v3_vl": _DEFAULTS},
    assumes={
        "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")), "disable_merger_proj": Assumed((True,), null=True),
        "deepstack_visual_indexes": Assumed(([],)),
    },
    why_not=within("visual.", "linear_proj."),
    rules=(time_slices("visual.patch_embed.proj.weight"),),
    names={"visual.merger.norm": "mm.input_norm", "linear_proj.0": "mm.0", "linear_proj.2": "mm.2"},
)  # fmt: skip
