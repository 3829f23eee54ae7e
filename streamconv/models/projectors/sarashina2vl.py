"""The vision tower of Sarashina2-Vision, which is that of Qwen 2 VL."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import projector, thirds, time_slices, tower, within


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; where there is ``embed_dim``, it is the width and ``hidden_size`` stands for the feed-forward network."""
    given = {"embedding_length": c.integer("embed_dim"), "feed_forward_length": c.hidden} if c.get("embed_dim") else {}
    tower(m, c, **{"image_size": 560, **given} if c.get("image_size") is None else given)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.raw.get("rms_norm_eps", 1e-6))


FAMILY = projector(
    "qwen2vl_merger",
    ("Sarashina2VisionForCausalLM",),
    keys=(keys,),
    assumes={"hidden_act": Assumed(("quick_gelu",)), "spatial_merge_size": Assumed((2,))},
    why_not=within("visual."),
    rules=(*thirds("visual.blocks.{bid}.attn.qkv"), time_slices("visual.patch_embed.proj.weight")),
)
