"""Qwen 2.5 Omni: the vision tower of Qwen 2.5 VL and Whisper's encoder in one file."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._audio import heard, spelled, whisper_beside
from ._sound_rows import one_column, positions
from ._vision import ears, kind, projector, thirds, time_slices, told, tower, vision_section, within
from .qwen2vl import window_pattern

#: class defaults
_VISION = {
    "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "image_size": 560,
    "fullatt_block_indexes": [7, 15, 23, 31], "spatial_merge_size": 2, "hidden_act": "silu",
}  # fmt: skip


sound = whisper_beside("qwen2_5_omni_audio_encoder")


def keys(m: Metadata, a: str, c: Config) -> None:
    """Both towers."""
    tower(m, c)
    ears(m, c, sound(c))
    heard(m, a, sound(c))
    kind("qwen2.5o")(m, a, c)
    m.boolean("clip.use_silu", True)
    m.u32("clip.vision.n_wa_pattern", window_pattern(c))
    m.f32("clip.vision.attention.layer_norm_epsilon", 1e-6)


FAMILY = projector(
    ("qwen2.5o",),
    ("Qwen2_5OmniModel",),
    keys=(keys,),
    section=vision_section,
    classes={"qwen2_5_omni_vision_encoder": _VISION},
    assumes={"hidden_act": Assumed(("silu",)), "spatial_merge_size": Assumed((2,)), **told(window_size=112)},
    why_not=within("visual.", "audio_tower."),
    drops={"audio_tower.audio_bos_eos_token*": "not used"},
    spelled=spelled,
    rules=(
        positions(lambda c: sound(c).hidden),
        *thirds("visual.blocks.{bid}.attn.qkv"),
        time_slices("visual.patch_embed.proj.weight"),
    ),
    transforms={"a.conv1d.*": one_column},
    types={"a.conv1d.*.weight": "F16"},
)
