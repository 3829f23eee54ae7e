"""The vision tower of InternVL and Intern-S1: in remote code's spelling, or in that of transformers."""

from __future__ import annotations

import re

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import epsilon, gelu_or_silu, per_side, projector, thirds, told, vision

_NO_SUFFIX = re.compile(r"(\.ls\d+|\.lambda_\d+|\.position_embeddings?)$")
_TOWER = "vision_tower.vision_model."


def tiles(m: Metadata, _arch: str, c: Config) -> None:
    """Into how many tiles an image is cut, and how many features are put side by side."""
    m.u32("clip.vision.projector.scale_factor", per_side(c, "downsample_ratio", c.raw.get("downsample_ratio", 0.5)))
    for end in ("min", "max"):
        said = c.raw.get(f"{end}_dynamic_patch")
        if isinstance(said, int) and said > 0:
            m.u32(f"clip.vision.preproc_{end}_tiles", said)


def why_not(name: str) -> str | None:
    """The tower and the projection."""
    starts = "vision_model.", "mlp1.", "vision_tower.", "multi_modal_projector."
    return None if name.removeprefix("model.").startswith(starts) else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` with what is around the tower in either spelling, and a suffix where it has none."""
    name = name.removeprefix("model.")
    if name.startswith("vision_model."):
        name = f"vision_tower.{name}"
    elif name.startswith("vision_tower.") and not name.startswith(_TOWER):
        name = f"model.{name}"
    return f"{name}.weight" if _NO_SUFFIX.search(name) else name


FAMILY = projector(
    "internvl",
    (
        "InternVisionModel", "InternVLChatModel", "InternVLForConditionalGeneration", "InternS1ForConditionalGeneration",
    ),
    keys=(vision, epsilon("layer_norm_eps", default=1e-6), gelu_or_silu, tiles),
    classes={"internvl_vision": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": [448, 448], "patch_size": [14, 14], "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    }},
    assumes={
        "norm_type": Assumed(
            lambda _, c: ("rms_norm",) if (c.hidden, c.n_layers) == (3200, 45) else ("layer_norm",),
            "runtimes compute RMS norms in the tower of 45 layers and width 3200 only, layer norms in others",
        ),
        **told(__ps_version="v2", __select_layer=-1, __vision_feature_layer=-1, __use_thumbnail=True, __dynamic_image_size=True),
    },
    why_not=why_not,
    spelled=spelled,
    rules=thirds(f"{_TOWER}encoder.layers.{{bid}}.attn.qkv"),
    names={
        "multi_modal_projector.layer_norm": "mm.model.mlp.0", "multi_modal_projector.linear_1": "mm.model.mlp.1",
        "multi_modal_projector.linear_2": "mm.model.mlp.3",
    },
)  # fmt: skip
