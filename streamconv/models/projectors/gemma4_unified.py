"""Gemma 4 without towers: patches, and frames of sound, go through a projection alone."""

from __future__ import annotations

from ...kit import Order, Selected
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ._vision import audio, colours_first, ears, projector, told, tower, vision_section, within
from .gemma4 import kinds

#: there are no blocks
_NONE = {"feed_forward_length": 0, "block_count": 0, "head_count": 0}


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Widths; runtimes choose the size of images by themselves."""
    sound = audio(c, {"gemma4_unified_audio": {"audio_embed_dim": 640}})
    tower(m, c, embedding_length=c.integer("mm_embed_dim"), **_NONE)
    if sound is not None:
        ears(m, c, sound, embedding_length=sound.integer("audio_embed_dim"), **_NONE)
    kinds(m, c, sound, "gemma4uv", "gemma4ua")


def by_colours(rows: Rows, c: Config) -> Rows:
    """What goes through (row, column, colour) of a patch in the order (colour, row, column), as runtimes cut images."""
    said = c.get("model_patch_size")
    side = c.integer("patch_size") * c.integer("pooling_kernel_size") if said is None else c.integer("model_patch_size")
    if rows.shape[-1] != 3 * side**2:
        raise ValueError(f"a patch is {side} pixels a side")
    return colours_first(rows, side)


def dense(rows: Rows, c: Config) -> Rows:
    """The projection of patches; its biases stay as they are."""
    return by_colours(rows, c) if len(rows.shape) > 1 else rows


def by_axes(rows: Rows, _config: Config) -> Rows:
    """The table of positions [numbers, axes, width] by axes first."""
    numbers, axes, width = rows.shape
    return Selected(rows, Order((axes, numbers), (1, axes)), (axes, numbers, width))


def spelled(name: str, _config: Config) -> str:
    """``name`` with a suffix where it has none."""
    return f"{name}.weight" if name.endswith("pos_embedding") else name


FAMILY = projector(
    ("gemma4uv", "gemma4ua"),
    ("Gemma4UnifiedForConditionalGeneration",),
    keys=(keys,),
    section=lambda raw: {**vision_section(raw), "image_size": 224},
    #: class defaults
    classes={"gemma4_unified_vision": {"mm_embed_dim": 3840, "patch_size": 16, "pooling_kernel_size": 3}},
    assumes=told(rms_norm_eps=1e-6, pooling_kernel_size=3),
    why_not=within("vision_embedder.", "embed_vision.", "embed_audio."),
    spelled=spelled,
    names={
        "model.vision_embedder.patch_dense": "v.patch_embd", "model.vision_embedder.pos_embedding": "v.position_embd",
        "model.vision_embedder.pos_norm": "v.patch_norm.3",
        **{f"model.vision_embedder.patch_ln{n}": f"v.patch_norm.{n}" for n in (1, 2)},
    },
    transforms={"v.patch_embd": dense, "v.patch_norm.1": by_colours, "v.position_embd": by_axes},
)  # fmt: skip
