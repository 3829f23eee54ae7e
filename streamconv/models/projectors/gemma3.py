"""Gemma 3's vision projector file (``--mmproj``): the SigLIP tower and the projection into the text model.

The text part of the same checkpoint is a file of its own (``families/gemma3.py``). Runtimes load the two together.
"""

from __future__ import annotations

import math

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..families.gemma import plus_one
from ._vision import SIGLIP, epsilon, gelu, kind, processor, projector, require, side_of, vision, within

_PROJECTION = "mm_input_projection_weight", "mm_soft_emb_norm.weight"


def spelled(name: str, _config: Config) -> str:
    """``name`` as the table has it; newer checkpoints nest it in ``model.`` and leave ``vision_model.`` out."""
    name = name.removeprefix("model.")
    inner = name.removeprefix("vision_tower.").removeprefix("vision_model.")
    return (name if inner == name else f"vision_tower.vision_model.{inner}").replace("_weight", ".weight")


def pooled(m: Metadata, _arch: str, c: Config) -> None:
    """How many patches a side become one token, where it is not what runtimes assume."""
    require(c, "patch_embedding.weight", "position_embedding.weight", "post_layernorm.weight", *_PROJECTION)
    tokens = processor(c).get("image_seq_length", c.raw.get("mm_tokens_per_image", 256))
    side = side_of(c, "image_size") // side_of(c, "patch_size")
    scale = side // math.isqrt(tokens) if isinstance(tokens, int) and tokens > 0 else 4
    if scale not in (0, 4):
        m.u32("clip.vision.projector.scale_factor", scale)


FAMILY = projector(
    ("gemma3",),
    ("Gemma3ForConditionalGeneration",),
    keys=(vision, kind("gemma3"), epsilon("layer_norm_eps", default=1e-6), gelu, pooled),
    classes={"siglip_vision_model": SIGLIP},
    assumes={
        "hidden_act": Assumed(("gelu_pytorch_tanh",)),
        ".mm_tokens_per_image": Assumed(
            lambda stated, c: (processor(c).get("image_seq_length", stated),),
            "the image processor's 'image_seq_length' counts",
        ),
    },
    why_not=within("vision_tower.", "vision_model.", "multi_modal_projector."),
    spelled=spelled,
    drops={"*vision_model.head.*": "not part of the projector"},
    transforms={"mm.soft_emb_norm": plus_one},
    types={"mm.input_projection.weight": "F16", "v.patch_embd.weight": "F32", "v.position_embd.weight": "F32"},
)
