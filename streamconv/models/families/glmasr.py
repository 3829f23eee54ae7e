"""GLM ASR: Llama with GLM's special tokens, behind an encoder of speech."""

from __future__ import annotations

from dataclasses import replace

from ..tokenizers import BPE
from . import llama
from ._glm import GLM4_TOKENS

FAMILY = replace(
    llama.FAMILY,
    architectures=("GlmasrModel",),
    tokenizer=BPE,
    classes={},
    token_keys=(GLM4_TOKENS,),
    idle=(
        "whisper_config",
        "adapter_type",
        "merge_factor",
        "mlp_adapter_act",
        "spec_aug",
        "use_rope",
        "max_whisper_length",
    ),
)
