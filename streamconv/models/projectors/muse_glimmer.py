"""The vision tower of Muse Glimmer: rotary pairs side by side, and patches of several frames that are added up."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import Reshaped, Sum, split
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed, layers
from ..config import Config
from ..families.llama import interleave_q
from ._vision import projector, side_of, tower, with_root, within


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes; images are of any, and named is that of the table of positions."""
    merged = c.integer("merge_size")
    tower(m, c, image_size=c.integer("pos_emb_height") * side_of(c, "patch_size") * merged)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.real("layer_norm_eps"))
    m.u32("clip.vision.spatial_merge_size", merged)


def of_one_frame(rows: Rows, c: Config) -> Rows:
    """A linear layer over (frame, colour, row, column) of patches as a convolution over one frame, for images that stand still."""
    frames, side = c.integer("patch_temporal"), side_of(c, "patch_size")
    if frames < 1 or rows.shape[-1] != frames * 3 * side**2:
        raise BadInput(f"{c.folder}: patches have {rows.shape[-1]} numbers, not {frames} frames of 3 x {side} x {side}")
    return Reshaped(Sum(split(rows, [3 * side**2] * frames, -1)), (rows.shape[0], 3, side, side))


FAMILY = projector(
    "muse-glimmer",
    ("MuseGlimmerForConditionalGeneration",),
    keys=(keys,),
    classes={"muse_glimmer_vision": {
        "patch_size": 14, "pos_emb_height": 32, "pos_emb_width": 32, "num_attention_heads": 16, "num_hidden_layers": 50,
        "hidden_size": 1536, "intermediate_size": 8960, "patch_temporal": 2, "merge_size": 2, "layer_norm_eps": 1e-5,
    }},
    section=with_root("projector_hidden_act"),
    assumes={
        "hidden_act": Assumed(("gelu",)), "rope_theta": Assumed((10000,)),
        "projector_hidden_act": Assumed(("gelu",), "runtimes compute the projection with GELU"),
        "layer_types": layers(4, "window_attention"),
    },
    why_not=within("vision_tower.", "vision_adapter.", "vision_projection."),
    spelled=lambda name, _config: name,
    transforms={"v.patch_embd": of_one_frame, "v.blk.*.attn_q": interleave_q, "v.blk.*.attn_k": interleave_q},
    names={
        "model.vision_adapter.fc1": "mm.0", "model.vision_adapter.fc2": "mm.1", "model.vision_projection": "mm.2",
        "model.vision_tower.patch_embedder.patch_embedding": "v.patch_embd",
        "model.vision_tower.ln_pre": "v.pre_ln", "model.vision_tower.ln_post": "v.post_ln",
        **{
            f"model.vision_tower.layers.{{bid}}.{theirs}": f"v.blk.{{bid}}.{ours}"
            for theirs, ours in (
                ("norm1", "ln1"), ("norm2", "ln2"), ("attn.q_proj", "attn_q"), ("attn.k_proj", "attn_k"),
                ("attn.v_proj", "attn_v"), ("attn.proj", "attn_out"), ("mlp.fc1", "ffn_up"), ("mlp.fc2", "ffn_down"),
            )
        },
    },
)  # fmt: skip
