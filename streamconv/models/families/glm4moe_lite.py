"""GLM 4.7 Flash: DeepSeek's latent attention and experts with GLM's tokens."""

from __future__ import annotations

from dataclasses import replace

from ..tokenizers import BPE
from . import deepseek2
from ._glm import GLM_MOE_TOKENS
from ._nextn import COUNTED, counted, further, untied

FAMILY = replace(
    deepseek2.FAMILY,
    named_as="glm-dsa",
    architectures=("Glm4MoeLiteForCausalLM",),
    tokenizer=BPE,
    classes={},
    assumes={**deepseek2.ASSUMES, **COUNTED},
    further=further,
    keys=(*deepseek2.KEYS, counted),
    token_keys=(GLM_MOE_TOKENS,),
    spelled=untied,
)
