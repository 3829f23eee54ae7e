"""Gemma 3's vision projector file (``--mmproj``): the SigLIP tower and the projection into the text model.

The text part of the same checkpoint is a file of its own (``families/gemma3.py``). Runtimes load the two together.
"""

from __future__ import annotations

import math
import re

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.hf_config import flattened
from ..assumed import Assumed
from ..config import Config
from ..families.gemma import plus_one
from ..family import Family
from ..keys import file_type
from ._vision import image_statistics, require, sizes, vision_section

_PROJECTION = "mm_input_projection_weight", "mm_soft_emb_norm.weight"


def spelled(name: str, _config: Config) -> str:
    """``name`` as the table has it; newer checkpoints nest it in ``model.`` and leave ``vision_model.`` out."""
    name = re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name.removeprefix("model."))
    return name.replace("_projection_weight", "_projection.weight")


def why_not(name: str) -> str | None:
    """Why a tensor is not part of the projector."""
    is_own = name.removeprefix("model.").startswith(("vision_tower.", "multi_modal_projector."))
    return None if is_own else "not part of the projector"


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """What the runtime asks of the tower."""
    require(c, "patch_embedding.weight", "position_embedding.weight", "post_layernorm.weight", *_PROJECTION)
    text = Config({"hidden_size": 2304, **flattened(c.raw)}, {}, {})
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text.hidden)
    sizes(m, c)
    image_statistics(m, c)
    m.string("clip.projector_type", "gemma3")
    m.f32("clip.vision.attention.layer_norm_epsilon", c.real("layer_norm_eps"))
    m.boolean("clip.use_gelu", True)
    if not c.integer("patch_size"):
        raise BadInput("config.json: the vision tower's patch_size is 0")
    tokens = c.raw.get("mm_tokens_per_image", 256)
    side = c.integer("image_size") // c.integer("patch_size")
    scale = side // math.isqrt(tokens) if isinstance(tokens, int) and tokens > 0 else 4
    if scale != 4:  # what runtimes assume
        m.u32("clip.vision.projector.scale_factor", scale)


FAMILY = Family(
    arch="clip",
    architectures=("Gemma3ForConditionalGeneration",),
    tokenizer=None,
    kind="mmproj",
    section=vision_section,
    #: class defaults of the SigLIP configuration
    classes={"siglip_vision_model": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224,
        "patch_size": 16, "layer_norm_eps": 1e-6,
    }},
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh",))},
    keys=(file_type, keys),
    why_not=why_not,
    spelled=spelled,
    transforms={"mm.soft_emb_norm": plus_one},
    types={"mm.input_projection.weight": "F16", "v.patch_embd.weight": "F32", "v.position_embd.weight": "F32"},
)  # fmt: skip
