"""Gemma 2: norms before and after each sublayer, soft-capped logits, every other layer with a sliding window."""

from __future__ import annotations

from ..family import GELU_TANH, Family
from ..keys import sliding_window, soft_caps
from ..tokenizers import GEMMA
from .gemma import GEMMA_KEYS, UNTIED, plus_one

FAMILY = Family(
    arch="gemma2",
    architectures=("Gemma2ForCausalLM",),
    defaults={
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
    assumes=GELU_TANH,
    keys=(*GEMMA_KEYS, soft_caps, sliding_window),
    transforms={"*norm": plus_one},
    drops=UNTIED,
    tokenizer=GEMMA,
)
