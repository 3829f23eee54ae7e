"""Gemma 3, text: 270m and 1b, and the text part of the multimodal sizes; local and global RoPE bases, q/k norms."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ..family import GELU_TANH, Family
from ..keys import BASE, final_soft_cap, sliding_window
from ..tokenizers import GEMMA3
from .gemma import plus_one


def window(m: Metadata, a: str, c: Config) -> None:
    """The sliding window, unless every layer looks at the whole context."""
    if c.get("sliding_window_pattern") != 1:
        sliding_window(m, a, c)


def caps(m: Metadata, a: str, c: Config) -> None:
    """Output cap where there is one; attention caps are not part of this architecture."""
    if c.get("attn_logit_softcapping"):
        raise BadInput("config.json: 'attn_logit_softcapping' is set, which no Gemma 3 runtime supports")
    final_soft_cap(m, a, c)


def local_freq_base(m: Metadata, a: str, c: Config) -> None:
    """The base of local layers under candle's name too; llama.cpp's is ``rope.freq_base_swa``."""
    m.f32(f"{a}.rope.local_freq_base", float(c.rope_local["rope_theta"]))


FAMILY = Family(
    arch="gemma3",
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    defaults={
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "sliding_window": 4096,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
    assumes=GELU_TANH,
    keys=(*BASE, caps, window, local_freq_base),
    transforms={"*norm": plus_one},
    cut_vocabulary=True,
    tokenizer=GEMMA3,
)
