"""Tensor names: which are not part of the text model, and how the others are called in GGUF."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Starts of names that belong to other modules of a multimodal checkpoint.
_OTHER_STARTS = ("mlp", "vit.", "vpm.", "siglip2.", "merger.", "resampler.", "conformer.", "sound_")
#: Parts of names that belong to other modules of a multimodal checkpoint.
_OTHER_PARTS = (
    "visual.", "vision.", "vision_", "audio.", "audio_", "talker.", "projector.", "patch_embed", "image_newline",
    "model.connector.", "token2wav.", "code2wav.", "multi_modal_projector.",
)  # fmt: skip
#: Buffers that checkpoints carry and no runtime wants.
_BUFFERS = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_BLOCK = re.compile(r"\.(\d+)\.")
_GGUF_BLOCK = re.compile(r"^blk\.[^.]+\.")

#: Names of the Llama layout, which most decoders share.
LLAMA_NAMES: Mapping[str, str] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{bid}.input_layernorm": "blk.{bid}.attn_norm",
    "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.ffn_norm",
    "model.layers.{bid}.self_attn.q_proj": "blk.{bid}.attn_q",
    "model.layers.{bid}.self_attn.k_proj": "blk.{bid}.attn_k",
    "model.layers.{bid}.self_attn.v_proj": "blk.{bid}.attn_v",
    "model.layers.{bid}.self_attn.o_proj": "blk.{bid}.attn_output",
    "model.layers.{bid}.mlp.gate_proj": "blk.{bid}.ffn_gate",
    "model.layers.{bid}.mlp.up_proj": "blk.{bid}.ffn_up",
    "model.layers.{bid}.mlp.down_proj": "blk.{bid}.ffn_down",
}
#: Qwen 3 and Gemma 3 normalise queries and keys per head.
QK_NORM_NAMES: Mapping[str, str] = {
    "model.layers.{bid}.self_attn.q_norm": "blk.{bid}.attn_q_norm",
    "model.layers.{bid}.self_attn.k_norm": "blk.{bid}.attn_k_norm",
}
#: Gemma 2 and 3 have norms on both sides of attention and feed-forward.
SANDWICH_NORM_NAMES: Mapping[str, str] = {
    "model.layers.{bid}.post_attention_layernorm": "blk.{bid}.post_attention_norm",
    "model.layers.{bid}.pre_feedforward_layernorm": "blk.{bid}.ffn_norm",
    "model.layers.{bid}.post_feedforward_layernorm": "blk.{bid}.post_ffw_norm",
}


def is_other_module(name: str) -> bool:
    """Whether tensor ``name`` belongs to a vision, audio or projector module of a multimodal checkpoint."""
    return name.startswith(_OTHER_STARTS) or any(part in name for part in _OTHER_PARTS)


def is_buffer(name: str) -> bool:
    """Whether tensor ``name`` is a buffer that is recomputed by every runtime."""
    return name.endswith(_BUFFERS)


def plain_name(name: str) -> str:
    """``name`` as a text-only checkpoint would spell it.

    >>> plain_name("model.language_model.layers.0.mlp.up_proj.weight"), plain_name("layers.0.mlp.up_proj.weight")
    ('model.layers.0.mlp.up_proj.weight', 'model.layers.0.mlp.up_proj.weight')
    >>> plain_name("llm.model.norm.weight")
    'model.norm.weight'
    """
    name = name.removeprefix("llm.").replace("language_model.", "")
    if name.startswith(("layers.", "embed_tokens.", "norm.")):  # saved from the bare model class
        name = "model." + name
    return name


def gguf_name(name: str, names: Mapping[str, str]) -> str | None:
    """The GGUF name of tensor ``name`` (plain), or None when ``names`` does not know it.

    >>> gguf_name("model.layers.12.self_attn.q_proj.bias", LLAMA_NAMES)
    'blk.12.attn_q.bias'
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("weight", "bias"):
        return None
    block = _BLOCK.search(stem)
    if block is None:
        found = names.get(stem)
    else:
        found = names.get(_BLOCK.sub(".{bid}.", stem, count=1))
        found = found and found.replace("{bid}", block[1])
    return found and f"{found}.{suffix}"


def stem_of(name: str) -> str:
    """What a tensor of GGUF name ``name`` is called in any block, weight or bias.

    >>> stem_of("blk.12.attn_q.bias"), stem_of("blk.{bid}.attn_q"), stem_of("output_norm.weight")
    ('attn_q', 'attn_q', 'output_norm')
    """
    return _GGUF_BLOCK.sub("", name).removesuffix(".weight").removesuffix(".bias")
