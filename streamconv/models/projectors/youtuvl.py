"""The vision tower of Youtu-VL: SigLIP 2 with windows in all but some layers."""

from __future__ import annotations

import re

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ._vision import SIGLIP, epsilon, projector, tower

_SIDE = 560
_KNOWN = re.compile(
    r"(siglip2\.vision_model\.(embeddings\.patch_embedding|post_layernorm"
    r"|encoder\.layers\.\d+\.(layer_norm[12]|mlp\.fc[12]|self_attn\.(q|k|v|out)_proj))"
    r"|merger\.(ln_q|mlp\.\d+))\.(weight|bias)"
)


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes, the activation, and in which layers there is no window."""
    tower(m, c, **({} if c.get("image_size") is not None else {"image_size": _SIDE}))
    act = str(c.get("hidden_act") or "gelu_pytorch_tanh").lower()
    if act not in ("gelu", "gelu_pytorch_tanh", "gelu_fast", "gelu_new", "gelu_accurate", "silu"):
        raise BadInput(f"{c.place}: the vision tower's 'hidden_act' is {act!r}, runtimes compute 'gelu' or 'silu'")
    m.boolean("clip.use_silu" if act == "silu" else "clip.use_gelu", True)
    merged = c.get("spatial_merge_size")
    m.u32("clip.vision.spatial_merge_size", 2 if merged is None else merged)
    if c.get("window_size") is not None:
        m.u32("clip.vision.window_size", c.integer("window_size"))
    full = c.get("fullatt_block_indexes")
    if not isinstance(full, list) or not all(isinstance(n, int) and 0 <= n < c.n_layers for n in full):
        raise BadInput(f"{c.place}: 'fullatt_block_indexes' is {full!r}, not a list of some of {c.n_layers} layers")
    m.array("clip.vision.wa_layer_indexes", "INT32", full)


def why_not(name: str) -> str | None:
    """The tower and what merges patches, as far as runtimes know them."""
    return None if _KNOWN.fullmatch(name) else "not part of the projector, or not known to runtimes"


FAMILY = projector(
    "youtuvl",
    ("YoutuVLForConditionalGeneration",),
    keys=(keys, epsilon("layer_norm_eps", default=1e-6)),
    classes={"siglip2_vision_model": {key: value for key, value in SIGLIP.items() if key != "image_size"}},
    why_not=why_not,
    spelled=lambda name, _config: name,
)
