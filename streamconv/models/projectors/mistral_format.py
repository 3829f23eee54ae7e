"""Pixtral's tower in Mistral's own layout (``--mistral-format``): rotary pairs lie side by side already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ..rules import Rule
from ._vision import projector, sizes, text
from .pixtral import line_end

_TOKENS = "tok_embeddings.weight"
#: statistics of images that CLIP was trained with; no file of this layout says them
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``vision_encoder`` of params.json (BadInput where there is none)."""
    found = raw.get("vision_encoder")
    if not isinstance(found, Mapping):
        raise BadInput("params.json has no 'vision_encoder', so there is no projector to write")
    return found


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes, and how many patches a side are merged into one, where they are."""
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    sizes(m, c)
    m.array("clip.vision.image_mean", "FLOAT32", _MEAN)
    m.array("clip.vision.image_std", "FLOAT32", _STD)
    m.f32("clip.vision.attention.layer_norm_epsilon", text(c).real("rms_norm_eps"))
    m.f32("clip.rope.freq_base", c.real("rope_theta"))
    m.boolean("clip.use_silu", True)
    if c.get("mm_projector_id") == "patch_merge":
        m.u32("clip.vision.spatial_merge_size", c.integer("spatial_merge_size"))


def why_not(name: str) -> str | None:
    """The tower, what is behind it, and the table of tokens, of which a row is part of the projector."""
    starts = "vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm.", _TOKENS
    return None if name.startswith(starts) else "not part of the projector"


FAMILY = projector(
    "pixtral",
    ("MistralFormat",),
    keys=(keys,),
    section=section,
    why_not=why_not,
    names={"vision_language_adapter.w_in": "mm.1", "vision_language_adapter.w_out": "mm.2"},
    rules=(Rule(("v.token_embd.img_break",), (_TOKENS,), line_end),),
)
