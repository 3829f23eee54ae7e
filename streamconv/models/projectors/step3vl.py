"""The vision tower of Step3-VL and Step 3.7: layers that scale themselves, and convolutions behind them."""

from __future__ import annotations

import re

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import F16_IN_F16, epsilon, projector, side_of, tower

#: what remote code says of pixels
_STATISTICS = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
#: the only tower that runtimes are known to compute: stride, side of images, width, layers
_KNOWN = (2, 728, 1536, 47)
_RATIO = 8960 / 1536
#: the longest side of an image before it is cut
_LONGEST = 3024
_GLUED = re.compile(r"(attn\.in_proj)_(weight|bias)$")


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; the feed-forward network's may be a ratio to the width (BadInput: of another tower than is known)."""
    width, blocks = c.integer("hidden_size", "width"), c.integer("num_hidden_layers", "layers")
    stride = c.raw.get("understand_projector_stride")
    found = stride, side_of(c, "image_size"), width, blocks
    if found != _KNOWN:
        raise BadInput(
            f"{c.place}: stride, side of images, width and layers of the vision tower are {found}, runtimes compute {_KNOWN}"
        )
    ratio = c.real("mlp_ratio") if c.get("mlp_ratio") is not None else _RATIO
    said = c.get("intermediate_size")
    tower(m, c, _STATISTICS, feed_forward_length=c.integer("intermediate_size") if said else round(width * ratio))
    m.u32("clip.vision.projector.scale_factor", _KNOWN[0] ** 2)
    m.u32("clip.vision.preproc_image_size", _LONGEST)


def why_not(name: str) -> str | None:
    """The tower and the projection."""
    return None if name.startswith(("vision_model.", "vit_large_projector.")) else "not part of the projector"


def spelled(name: str, _config: Config) -> str:
    """``name`` with the suffix that tables have."""
    if name.endswith("positional_embedding"):
        return f"{name}.weight"
    if ".ls_" in name and name.endswith(".gamma"):
        return f"{name.removesuffix('.gamma')}.weight"
    return _GLUED.sub(r"\1.\2", name)


FAMILY = projector(
    "step3vl",
    ("StepVLForConditionalGeneration", "Step3p7ForConditionalGeneration"),
    keys=(keys, epsilon("layer_norm_eps", default=1e-5)),
    assumes={"hidden_act": Assumed(("quick_gelu",)), "use_ln_pre": Assumed((True,)), "use_ln_post": Assumed((False,))},
    why_not=why_not,
    spelled=spelled,
    types={"mm.[01].weight": F16_IN_F16},
    names={
        "vision_model.vit_downsampler1": "mm.0",
        "vision_model.vit_downsampler2": "mm.1",
        "vit_large_projector": "mm.model.fc",
    },
)
