"""The vision tower of Qwen 3 VL, 3.5 and 4: features of several of its layers go into the text model."""

from __future__ import annotations

import math
import re

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import gelu, merge_size, of_the_outer_class, projector, text, time_slices, vision, within

#: class defaults; those of Qwen 3.5 have no features of inner layers
_VISION = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
    "spatial_merge_size": 2, "num_position_embeddings": 2304,
    "image_size": lambda c: int(math.sqrt(c.integer("num_position_embeddings")) * c.integer("patch_size")),
}  # fmt: skip
WITH_FEATURES = {**_VISION, "deepstack_visual_indexes": [8, 16, 24]}
#: names that the table has otherwise
NAMES = {
    "visual.merger.norm": "v.post_ln", "visual.merger.linear_fc1": "mm.0", "visual.merger.linear_fc2": "mm.2",
    **{
        f"visual.deepstack_merger_list.{{bid}}.{theirs}": f"v.deepstack.{{bid}}.{ours}"
        for theirs, ours in (("norm", "norm"), ("linear_fc1", "fc1"), ("linear_fc2", "fc2"))
    },
}  # fmt: skip
_MERGER = re.compile(r"(visual\.deepstack_merger_list)\.(\d+)\.")


def layers_with_features(c: Config) -> list[int]:
    """Layers whose features go into the text model (BadInput where the tower has no such layer)."""
    listed, depth = c.get("deepstack_visual_indexes") or [], c.integer("depth")
    if not isinstance(listed, list) or not all(isinstance(n, int) and 0 <= n < depth for n in listed):
        raise BadInput(f"{c.place}: 'deepstack_visual_indexes' is {listed!r}, not a list of some of {depth} layers")
    return listed


def features(m: Metadata, _arch: str, c: Config) -> None:
    """Epsilon, which is that of the text model, and for each layer whether its features go there."""
    said = text(c).get("rms_norm_eps")
    m.f32("clip.vision.attention.layer_norm_epsilon", 1e-6 if said is None else said)
    deep = layers_with_features(c)
    m.array("clip.vision.is_deepstack_layers", "BOOL", [n in deep for n in range(c.integer("depth"))])


def spelled(name: str, config: Config) -> str:
    """``name`` without the outer ``model.``; mergers of features are numbered by their layers."""
    name = name.removeprefix("model.")
    if (found := _MERGER.match(name)) is None:
        return name
    deep, number = layers_with_features(config), int(found[2])
    if number >= len(deep):
        raise BadInput(f"{config.folder}: {name} has no layer in 'deepstack_visual_indexes' of config.json")
    return f"{found[1]}.{deep[number]}.{name[found.end() :]}"


FAMILY = projector(
    "qwen3vl_merger",
    (
        "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration", "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration", "Qwen4ExpForConditionalGeneration",
    ),
    keys=(vision, gelu, merge_size, features),
    section=of_the_outer_class,
    classes={
        "qwen3_vl_vision": WITH_FEATURES, "qwen3_vl_moe_vision": WITH_FEATURES,
        "qwen3_5_vision": _VISION, "qwen3_5_moe_vision": _VISION,
        "qwen4_exp_vision": _VISION,
    },
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh", "gelu"))},
    why_not=within("visual."),
    spelled=spelled,
    rules=(time_slices("visual.patch_embed.proj.weight"),),
    names=NAMES,
)  # fmt: skip
