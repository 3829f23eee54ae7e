"""Command R: attention and network side by side behind one norm, logits scaled, positions not."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, context_length
from ..tokenizers import BPE
from .gemma import UNTIED


def context(m: Metadata, a: str, c: Config) -> None:
    """Longest context; another key than that of most goes before."""
    context_length(m, a, c)
    if c.get("model_max_length"):
        m.u32(f"{a}.context_length", c.integer("model_max_length"))


def scales(m: Metadata, a: str, c: Config) -> None:
    """Scale of logits; positions are not scaled."""
    m.f32(f"{a}.logit_scale", c.real("logit_scale"))
    m.string(f"{a}.rope.scaling.type", "none")


DEFAULTS = {
    "rms_norm_eps": None, "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": True, "bos_token_id": 5,
    "eos_token_id": 255001, "pad_token_id": 0,
}  # fmt: skip
ASSUMED = {
    "hidden_act": GATED_SILU["hidden_act"],
    "rope_type": Assumed(("default",), "the output says that positions are not scaled"),
}
FAMILY = Family(
    arch="command-r",
    architectures=("CohereForCausalLM",),
    tokenizer=BPE,
    classes={"cohere": class_defaults(
        256000, 8192, 8192, 22528, 40, 64, None, **DEFAULTS, rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )},
    assumes=ASSUMED,
    idle=("use_qk_norm",),
    keys=(*(context if key is context_length else key for key in BASE), scales),
    drops=UNTIED,
)  # fmt: skip
