"""The vision tower of EXAONE 4.5: Qwen 2.5's, with fewer heads of keys and values, which stay fused with the queries."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._pixels import pixel_limits
from ._vision import of_the_outer_class, projector, time_slices, vision, within
from .qwen2vl import window_pattern


def attention(m: Metadata, _arch: str, c: Config) -> None:
    """Heads of keys and values, epsilon, and which blocks look through a window; the root's epsilon stands in for the tower's."""
    if c.get("num_key_value_heads") is not None:
        m.u32("clip.vision.attention.head_count_kv", c.integer("num_key_value_heads"))
    said = c.get("rms_norm_eps")
    eps = c.raw.get("rms_norm_eps", 1e-6) if said is None else said
    m.f32("clip.vision.attention.layer_norm_epsilon", eps)
    if c.get("window_size") is not None:
        m.u32("clip.vision.window_size", c.integer("window_size"))
    if c.get("fullatt_block_indexes"):
        m.u32("clip.vision.n_wa_pattern", window_pattern(c))
    m.boolean("clip.use_silu", True)


FAMILY = projector(
    "exaone4_5",
    ("Exaone4_5_ForConditionalGeneration",),
    keys=(vision, pixel_limits, attention),
    section=of_the_outer_class,
    classes={"exaone4_5_vision": {
        "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16, "num_key_value_heads": 8, "patch_size": 14,
        "image_size": 560, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    }},
    assumes={"hidden_act": Assumed(("silu",)), "spatial_merge_size": Assumed((2,)), "rope_theta": Assumed((10000,))},
    why_not=within("visual."),
    rules=(time_slices("visual.patch_embed.proj.weight"),),
)  # fmt: skip
