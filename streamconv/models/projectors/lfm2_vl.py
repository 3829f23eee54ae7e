"""The vision tower of LFM2-VL: SigLIP 2, whose layers behind the one that is taken do not count."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import SIGLIP, convolution, epsilon, gelu, projector, tower, with_root, within

_SIDE = 256


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; ``vision_feature_layer`` counts from the last layer, which is -1."""
    layer = c.raw.get("vision_feature_layer", -1)
    if isinstance(layer, bool) or not isinstance(layer, int) or not -c.n_layers <= layer < 0:
        raise BadInput(
            f"{c.place}: 'vision_feature_layer' is {layer!r}, not one of {c.n_layers} layers from the last, -1, on"
        )
    tower(m, c, image_size=_SIDE, block_count=c.n_layers + layer + 1)
    factor = c.raw.get("downsample_factor", 2)
    m.u32("clip.vision.projector.scale_factor", factor)


FAMILY = projector(
    "lfm2",
    ("Lfm2VlForConditionalGeneration",),
    keys=(keys, epsilon("layer_norm_eps", default=1e-6), gelu),
    classes={"siglip2_vision_model": SIGLIP},
    section=with_root("projector_hidden_act"),
    assumes={
        "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")),
        "patch_size": Assumed((16,)),
        "projector_hidden_act": Assumed(("gelu",), "runtimes compute the projection with GELU"),
    },
    why_not=within("vision_tower.", "multi_modal_projector."),
    transforms={"v.patch_embd": convolution},
)
