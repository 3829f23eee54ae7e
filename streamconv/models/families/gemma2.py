"""Gemma 2: norms before and after each sublayer, soft-capped logits, every other layer with a sliding window."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GELU_TANH, attention_scale, layers
from ..config import Config
from ..family import Family, class_defaults
from ..keys import sliding_window, soft_caps
from ..tokenizers import GEMMA
from .gemma import GEMMA_CLASS, GEMMA_KEYS, UNTIED, plus_one


def window(m: Metadata, a: str, c: Config) -> None:
    """The sliding window; where there is none the whole context, since loaders assume 4096 when the key is missing."""
    if c.get("sliding_window") is None:
        m.u32(f"{a}.attention.sliding_window", c.integer("max_position_embeddings"))
    sliding_window(m, a, c)


FAMILY = Family(
    arch="gemma2",
    architectures=("Gemma2ForCausalLM",),
    classes={"gemma2": class_defaults(
        256000, 8192, 2304, 9216, 26, 8, 4, head_dim=256, hidden_act=None, query_pre_attn_scalar=256,
        sliding_window=4096, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, **GEMMA_CLASS,
    )},
    assumes={**GELU_TANH, "query_pre_attn_scalar": attention_scale(46), "layer_types": layers(2)},
    keys=(*GEMMA_KEYS, soft_caps, window),
    transforms={"*norm": plus_one},
    drops=UNTIED,
    tokenizer=GEMMA,
)  # fmt: skip
