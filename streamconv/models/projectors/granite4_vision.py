"""The vision tower of Granite 4 Vision: features of several layers go through small transformers into several text layers."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import SIGLIP, epsilon, gelu, projector, side_of, text, vision, within

_OWN = re.compile(r"(layerwise|spatial)_projectors\.(\d+)\.(?:qformer\.encoder\.layer\.0\.)?")


class _Way(NamedTuple):
    """From a layer of the tower into one of the text model, through the ``number``-th projector of a ``kind``."""

    source: int
    target: int
    kind: str
    number: int


def ways(c: Config) -> list[_Way]:
    """The projectors, by the text layers they go into (BadInput where the tower or the text model has no such layer)."""
    n_text, n_vision = text(c).n_layers, c.n_layers
    pairs, spatial = c.raw.get("deepstack_layer_map") or [], c.raw.get("spatial_target_layers") or []
    found = [
        _Way(_layer(c, v, n_vision), _layer(c, t, n_text), "layerwise", n) for n, (v, t) in enumerate(sorted(pairs))
    ]
    source = c.raw.get("spatial_vision_layer", -1)
    found += [_Way(_layer(c, source, n_vision), _layer(c, t, n_text), "spatial", n) for n, t in enumerate(spatial)]
    return sorted(found, key=lambda way: way.target)


def _layer(c: Config, said: Any, n: int) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or not -n <= said < n:
        raise BadInput(f"{c.place}: a projector is of layer {said!r}, not one of {n}")
    return said % n


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """How features are put together, and of which layers."""
    m.u32("clip.vision.preproc_image_size", side_of(c, "image_size"))
    rate = str(c.raw.get("downsample_rate"))
    if not re.fullmatch(r"\d+/\d+", rate):
        raise BadInput(f"{c.place}: 'downsample_rate' is {rate!r}, not like '4/8'")
    for key, side in zip(("query_side", "window_side"), rate.split("/"), strict=True):
        m.u32(f"clip.vision.projector.{key}", int(side))
    listed = ways(c)
    m.array("clip.vision.feature_layer", "INT32", [way.source for way in listed])
    m.array("clip.vision.projector.spatial_offsets", "INT32", [w.number if w.kind == "spatial" else -1 for w in listed])
    if pinned := c.raw.get("image_grid_pinpoints"):
        m.array("clip.vision.image_grid_pinpoints", "INT32", [n for h, w in pinned for n in (w, h)])


def spelled(name: str, config: Config) -> str:
    """``name`` without the outer ``model.``; projectors of both kinds are numbered together."""
    name = name.removeprefix("model.")
    if (found := _OWN.match(name)) is None:
        return name
    for place, way in enumerate(ways(config)):
        if (way.kind, way.number) == (found[1], int(found[2])):
            return f"projectors.{place}.{name[found.end() :]}"
    raise BadInput(f"{config.folder}: config.json does not say which layer {name} is for")


_QFORMER = {
    **{
        f"{theirs}.attention.{part}": f"{ours}_{part[0]}"
        for theirs, ours in (("attention", "self_attn"), ("crossattention", "cross_attn"))
        for part in ("query", "key", "value")
    },
    "attention.output.dense": "self_attn_out", "attention.output.LayerNorm": "self_attn_norm",
    "crossattention.output.dense": "cross_attn_out", "crossattention.output.LayerNorm": "cross_attn_norm",
    "intermediate_query.dense": "ffn_up", "output_query.dense": "ffn_down", "output_query.LayerNorm": "ffn_norm",
    "qformer.layernorm": "post_norm", "image_positions": "img_pos", "query": "query", "norm": "norm", "out_linear": "linear",
}  # fmt: skip
FAMILY = projector(
    "granite4_vision",
    ("Granite4VisionForConditionalGeneration",),
    keys=(vision, epsilon("layer_norm_eps", default=1e-6), gelu, keys),
    classes={"siglip_vision_model": SIGLIP},
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh", "gelu"))},
    why_not=within("vision_tower.", "layerwise_projectors.", "spatial_projectors.", "image_newline"),
    spelled=spelled,
    drops={"*vision_model.head*": "not part of the projector"},
    names={
        "image_newline": "v.image_newline",
        **{f"projectors.{{bid}}.{theirs}": f"v.proj_blk.{{bid}}.{ours}" for theirs, ours in _QFORMER.items()},
    },
)
