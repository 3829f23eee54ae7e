"""MoonViT of three dimensions: Kimi K2.5 and GLM 5V, whose heads are rotated in pairs of another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import BadInput
from ...kit import Order, join, split, take
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Rule
from ._vision import kind, processor, projector, vision, within

_POSITIONS = {"height": 64, "width": 64, "time": 4}
_BLOCK = "vision_tower.encoder.blocks.{bid}"


def _said(c: Config, key: str, default: Any) -> Any:
    return default if c.get(key) is None else c.get(key)


def keys(m: Metadata, a: str, c: Config) -> None:
    """Places, the merge, and how many pixels an image may have."""
    kind("kimik25")(m, a, c)
    for axis, default in _POSITIONS.items():
        name = f"init_pos_emb_{axis}"
        m.u32(f"vision.pos_emb_{axis}", default if c.get(name) is None else c.integer(name))
    m.boolean("clip.use_gelu", _said(c, "projector_hidden_act", "gelu") == "gelu")
    said = c.get("projector_ln_eps") is not None
    m.f32("clip.vision.attention.layer_norm_epsilon", c.real("projector_ln_eps") if said else 1e-5)
    merged = _said(c, "merge_kernel_size", [2, 2])
    if not isinstance(merged, list) or len(merged) != 2 or merged[0] != merged[1]:
        raise BadInput(f"{c.place}: 'merge_kernel_size' is {merged!r}, runtimes merge squares of patches")
    m.u32("clip.vision.projector.scale_factor", merged[0])
    pixels, limits = c.integer("patch_size") ** 2, Config({"in_patch_limit": 16384, **processor(c)}, {}, {}, c.checkpoint)
    m.u32("clip.vision.image_min_pixels", 8 * pixels)
    m.u32("clip.vision.image_max_pixels", limits.integer("in_patch_limit") * pixels)


def rotated(rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
    """Queries, keys and values in one; the first two with their rows in the order in which runtimes rotate them."""
    heads = 16 if config.get("num_attention_heads") is None else config.integer("num_attention_heads")
    q, k, v = split(rows[0], [rows[0].shape[0] // 3] * 3)
    width = q.shape[0] // max(heads, 1)
    order = Order((heads, width // 4, 2, 2), (0, 2, 1, 3))
    return [join([take(q, order), take(k, order), v])]


FAMILY = projector(
    ("kimik25",),
    ("KimiK25ForConditionalGeneration", "Glm5vForConditionalGeneration"),
    keys=(vision, keys),
    section=None,
    why_not=within("vision_tower.", "mm_projector."),
    rules=tuple(
        Rule((f"v.blk.{{bid}}.attn_qkv{end}",), (f"{_BLOCK}.wqkv{end}",), rotated) for end in (".weight", ".bias")
    ),
)
