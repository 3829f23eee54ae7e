"""Gemma 3's vision projector file (``--mmproj``): the SigLIP tower and the projection into the text model.

The text part of the same checkpoint is a file of its own (``gemma3.py``). Runtimes load the two together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput, InputMissing
from ..metadata import Metadata
from ..rows import Rows, matrix_shape
from ..sources.checkpoint import Checkpoint
from .build import Model
from .config import Config, architecture, text_section
from .families.gemma import plus_one
from .general import general_metadata
from .names import gguf_name

_NAMES: Mapping[str, str] = {
    "vision_tower.vision_model.embeddings.patch_embedding": "v.patch_embd",
    "vision_tower.vision_model.embeddings.position_embedding": "v.position_embd",
    "vision_tower.vision_model.encoder.layers.{bid}.layer_norm1": "v.blk.{bid}.ln1",
    "vision_tower.vision_model.encoder.layers.{bid}.layer_norm2": "v.blk.{bid}.ln2",
    "vision_tower.vision_model.encoder.layers.{bid}.mlp.fc1": "v.blk.{bid}.ffn_up",
    "vision_tower.vision_model.encoder.layers.{bid}.mlp.fc2": "v.blk.{bid}.ffn_down",
    "vision_tower.vision_model.encoder.layers.{bid}.self_attn.q_proj": "v.blk.{bid}.attn_q",
    "vision_tower.vision_model.encoder.layers.{bid}.self_attn.k_proj": "v.blk.{bid}.attn_k",
    "vision_tower.vision_model.encoder.layers.{bid}.self_attn.v_proj": "v.blk.{bid}.attn_v",
    "vision_tower.vision_model.encoder.layers.{bid}.self_attn.out_proj": "v.blk.{bid}.attn_out",
    "vision_tower.vision_model.post_layernorm": "v.post_ln",
    "multi_modal_projector.mm_input_projection": "mm.input_projection",
    "multi_modal_projector.mm_soft_emb_norm": "mm.soft_emb_norm",
}
#: Class defaults of the SigLIP configuration.
_VISION_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224,
    "patch_size": 16, "layer_norm_eps": 1e-6,
}  # fmt: skip
#: Types that runtimes expect whatever the file type is.
_FORCED = {"mm.input_projection.weight": "F16", "v.patch_embd.weight": "F32", "v.position_embd.weight": "F32"}


def _plain(name: str) -> str:
    """``name`` in the spelling of ``_NAMES``; newer checkpoints nest it in ``model.`` and leave ``vision_model.`` out."""
    name = name.removeprefix("model.")
    name = re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)
    return name.replace("_projection_weight", "_projection.weight")


def build_projector(checkpoint: Checkpoint, *, model_name: str | None = None) -> Model:
    """The projector in ``checkpoint``.

    Raises
    ------
    BadInput : another architecture than Gemma 3, or a tensor that has no place
    InputMissing : the image processor's configuration is not there
    """
    name = architecture(checkpoint.config)
    vision_config = checkpoint.config.get("vision_config")
    if name != "Gemma3ForConditionalGeneration" or not isinstance(vision_config, Mapping):
        raise BadInput(f"{checkpoint.folder / 'config.json'}: {name!r} has no vision projector that can be written")
    vision = Config({**_VISION_DEFAULTS, **vision_config}, {}, {})
    tensors: dict[str, Rows] = {}
    left_out: dict[str, str] = {}
    for source_name, rows in checkpoint.tensors.items():
        plain = _plain(source_name)
        if not plain.startswith(("vision_tower.", "multi_modal_projector.")):
            left_out[source_name] = "not part of the projector"
            continue
        found = gguf_name(plain, _NAMES)
        if found is None:
            raise BadInput(f"{checkpoint.path}: tensor {source_name!r} has no place in a projector file")
        tensors[found] = plus_one(rows, vision) if found == "mm.soft_emb_norm.weight" else rows
    missing = [n for n in (*_FORCED, "mm.soft_emb_norm.weight", "v.post_ln.weight") if n not in tensors]
    if missing:
        raise BadInput(f"{checkpoint.path}: no tensor for {', '.join(missing)}", "Is this the whole checkpoint?")
    metadata = Metadata()
    metadata.string("general.architecture", "clip")
    n_params = sum(math.prod(matrix_shape(r.shape)) for r in tensors.values())
    metadata.update(general_metadata(checkpoint, kind="mmproj", n_params=n_params, model_name=model_name))
    metadata.u32("general.file_type", 0)
    _keys(metadata, vision, checkpoint)
    metadata.u32("general.quantization_version", 2)
    return Model(
        "clip", metadata, tensors, vision.n_layers, vision.n_heads, vision.n_heads, left_out=left_out,
        warnings=list(checkpoint.warnings), forced_types=_FORCED,
    )  # fmt: skip


def _keys(m: Metadata, vision: Config, checkpoint: Checkpoint) -> None:
    text = Config({"hidden_size": 2304, **text_section(checkpoint.config)}, {}, {})
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text.hidden)
    m.u32("clip.vision.image_size", vision.integer("image_size"))
    m.u32("clip.vision.patch_size", vision.integer("patch_size"))
    m.u32("clip.vision.embedding_length", vision.hidden)
    m.u32("clip.vision.feed_forward_length", vision.integer("intermediate_size"))
    m.u32("clip.vision.block_count", vision.n_layers)
    m.u32("clip.vision.attention.head_count", vision.n_heads)
    processor = _image_processor(checkpoint)
    for key in ("image_mean", "image_std"):
        values = processor.get(key)
        if not isinstance(values, list) or len(values) != 3:
            raise BadInput(f"{checkpoint.folder}: the image processor has no {key!r} of three numbers")
        m.array(f"clip.vision.{key}", "FLOAT32", values)
    m.string("clip.projector_type", "gemma3")
    m.f32("clip.vision.attention.layer_norm_epsilon", vision.real("layer_norm_eps"))
    m.boolean("clip.use_gelu", True)
    if not vision.integer("patch_size"):
        raise BadInput(f"{checkpoint.folder / 'config.json'}: the vision tower's patch_size is 0")
    side = vision.integer("image_size") // vision.integer("patch_size")
    tokens = checkpoint.config.get("mm_tokens_per_image", 256)
    scale = side // math.isqrt(tokens) if isinstance(tokens, int) and tokens > 0 else 4
    if scale != 4:  # what runtimes assume
        m.u32("clip.vision.projector.scale_factor", scale)


def _image_processor(checkpoint: Checkpoint) -> dict[str, Any]:
    found = checkpoint.json("preprocessor_config.json")
    if found is None:
        nested = (checkpoint.json("processor_config.json") or {}).get("image_processor")
        found = nested if isinstance(nested, dict) else None
    if found is None:
        raise InputMissing(
            f"{checkpoint.folder} has neither preprocessor_config.json nor processor_config.json",
            "Copy it from the model's page; the projector needs its image_mean and image_std.",
        )
    return found
