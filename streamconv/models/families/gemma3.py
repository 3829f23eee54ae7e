"""Gemma 3, text: 270m and 1b, and the text part of the multimodal sizes; local and global RoPE bases, q/k norms."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GELU_TANH, Assumed, attention_scale, layers
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, final_soft_cap, sliding_window
from ..tokenizers import GEMMA3
from .gemma import GEMMA_CLASS, plus_one


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
    local = c.rope_local
    if not local:  # of a model_type that has no class defaults
        return
    m.f32(f"{a}.rope.local_freq_base", float(local["rope_theta"]))


FAMILY = Family(
    arch="gemma3",
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    classes={"gemma3_text": class_defaults(
        262208, 131072, 2304, 9216, 26, 8, 4, head_dim=256, hidden_act=None, query_pre_attn_scalar=256,
        sliding_window=4096, rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}, **GEMMA_CLASS,
    )},
    assumes={
        **GELU_TANH,
        "query_pre_attn_scalar": attention_scale(62),
        "layer_types": layers(6),
        "sliding_window_pattern": Assumed((1, 6), "runtimes use full attention in every sixth layer"),
    },
    keys=(*BASE, caps, window, local_freq_base),
    transforms={"*norm": plus_one},
    cut_vocabulary=True,
    tokenizer=GEMMA3,
)  # fmt: skip
