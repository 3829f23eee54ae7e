"""The vision tower of Nemotron Nano VL: RADIO, whose table of positions is scaled to the size of images, and Parakeet's ears."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...kit import Resampled, Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ._parakeet import NAMES, TRANSFORMS, TYPES, sound_keys
from ._vision import epsilon, gelu, per_side, projector, side_of, tower, vision_section

_STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
#: sizes of the one RADIO that there is a runtime for, which config.json does not say
_HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
_KIND = "nemotron_v2_vl"
_TOWER = "vision_model.radio_model.model."


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's section with its sizes."""
    return {**vision_section(raw), **_HUGE, "image_size": raw.get("force_image_size", 512)}


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes, those of the ears where there are any, and how many features are put side by side."""
    tower(m, c, _STATISTICS)
    if isinstance(said := c.raw.get("sound_config"), Mapping):
        sound_keys(m, c, Config(said, {}, {}, c.checkpoint))
        m.string("clip.audio.projector_type", "parakeet")
        m.string("clip.vision.projector_type", _KIND)
    else:
        m.string("clip.projector_type", _KIND)
    ratio = per_side(c, "downsample_ratio", c.raw.get("downsample_ratio", 0.5))
    m.u32("clip.vision.projector.scale_factor", ratio)


def why_not(name: str) -> str | None:
    """Tower, ears and projections."""
    starts = _TOWER, "mlp1.", "sound_encoder.", "sound_projection."
    return None if name.startswith(starts) else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` with a suffix where the table of positions has none."""
    return f"{name}.weight" if name.endswith("patch_generator.pos_embed") else name


def scaled(rows: Rows, c: Config) -> Rows:
    """The table of positions [1, patches, width] for images of the size that is used."""
    side, own = side_of(c, "image_size") // side_of(c, "patch_size"), math.isqrt(rows.shape[1])
    if own**2 != rows.shape[1]:
        raise ValueError(f"{rows.shape[1]} positions are not those of a square")
    if side < 1:
        raise BadInput(f"{c.place}: images of {side_of(c, 'image_size')} pixels a side are smaller than a patch")
    return rows if side == own else Resampled(rows, own, side)


def patches(rows: Rows, c: Config) -> Rows:
    """A linear layer over (colour, row, column) of patches as a convolution."""
    side = side_of(c, "patch_size")
    return Reshaped(rows, (rows.shape[0], 3, side, side))


FAMILY = projector(
    (_KIND, "parakeet"),
    ("NemotronH_Nano_VL_V2", "RADIOModel"),
    keys=(keys, epsilon(default=1e-6), gelu),
    section=section,
    why_not=why_not,
    spelled=spelled,
    drops={
        "*input_conditioner*": "images are scaled by image_mean and image_std",
        "*conv.norm.num_batches*": "used in training only",
        "*patch_generator.video_embedder*": "runtimes read no videos",
    },
    transforms={"v.position_embd": scaled, "v.patch_embd": patches, **TRANSFORMS},
    types=TYPES,
    names=NAMES,
)
