"""MiniCPM-V 4.6: SigLIP with a merger between two of its layers, and another behind the last."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._vision import SIGLIP, epsilon, gelu, image_statistics, processor, projector, sizes, text, told, within

#: between two layers; without it, pictures are merged four to one once, not twice
_MERGER = "model.vision_tower.vit_merger."
_OF_MERGER = {
    "layer_norm1": "ln1", "pre_norm": "ds_ln", "linear_1": "ds_ffn_up", "linear_2": "ds_ffn_down",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in ("q", "k", "v", "out")},
}  # fmt: skip


def is_fourfold(c: Config) -> bool:
    """Whether four patches become one token, not sixteen (BadInput: neither)."""
    said = processor(c).get("downsample_mode", "16x")
    if said not in ("4x", "16x"):
        raise BadInput(f"{c.folder}: the image processor's 'downsample_mode' is {said!r}, runtimes know '4x' and '16x'")
    return bool(said == "4x")


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; a picture is cut into slices, whose size the image processor says."""
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    said = processor(c).get("scale_resolution")
    sizes(m, c, **({} if said is None else {"image_size": int(said)}))
    image_statistics(m, c)
    m.string("clip.projector_type", "minicpmv4_6")
    m.u32("clip.vision.projector.scale_factor", 2 if is_fourfold(c) else 4)
    layer = c.raw.get("insert_layer_id")
    m.array("clip.vision.wa_layer_indexes", "INT32", [c.integer("insert_layer_id") if layer is None else int(layer)])


def spelled(name: str, config: Config) -> str:
    """``name`` with the outer ``model.``, marked where it is of a merger that is not used."""
    name = f"model.{name.removeprefix('model.')}"
    if name.startswith(_MERGER):
        return f"unused {name}" if is_fourfold(config) else name
    return name.replace("model.vision_tower.", "vision_tower.vision_model.")


_BY_TWO = Assumed(([2, 2],), "runtimes merge two by two")
FAMILY = projector(
    ("minicpmv4_6",),
    ("MiniCPMV4_6ForConditionalGeneration",),
    keys=(keys, gelu, epsilon("layer_norm_eps", default=1e-6)),
    classes={"minicpmv4_6_vision": {**SIGLIP, "insert_layer_id": 6}},
    assumes={
        "hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")), "window_kernel_size": _BY_TWO, ".merge_kernel_size": _BY_TWO,
        ".downsample_mode": Assumed(
            lambda stated, c: (processor(c).get("downsample_mode", "16x"),), "the image processor's, or '16x', counts"
        ),
        **told(__drop_vision_last_layer=False, __merger_times=1),
    },
    why_not=within("vision_tower.", "merger."),
    spelled=spelled,
    drops={"unused *": "of a merger that is not used"},
    names={
        **{f"{_MERGER}{theirs}": f"v.vit_merger.{ours}" for theirs, ours in _OF_MERGER.items()},
        "model.merger.mlp.0.pre_norm": "mm.input_norm", "model.merger.mlp.0.linear_1": "mm.up",
        "model.merger.mlp.0.linear_2": "mm.down",
    },
)  # fmt: skip
