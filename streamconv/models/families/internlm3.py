"""InternLM 3: written as Llama."""

from __future__ import annotations

from dataclasses import replace

from ..config import UnlessNull
from ..family import class_defaults
from ..tokenizers import TokenizerRule
from . import llama
from .internlm2 import turn_end

FAMILY = replace(
    llama.FAMILY,
    architectures=("InternLM3ForCausalLM",),
    tokenizer=TokenizerRule(("spm",), prefix_from_config=True),
    classes={"internlm3": class_defaults(
        128512, 32768, 4096, 10240, 48, 32, 2, head_dim=UnlessNull(128), rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )},
    idle=("bias",),
    token_keys=(turn_end,),
)  # fmt: skip
