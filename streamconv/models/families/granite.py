"""Granite 3: the Llama layout with four multipliers, which are written as scales."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import class_defaults
from ..keys import BASE, key_value_length, vocab_size
from . import llama

_SCALES = {
    "attention.scale": "attention_multiplier", "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier", "logit_scale": "logits_scaling",
}  # fmt: skip
MULTIPLIERS = {name: 1.0 for name in _SCALES.values()}


def scales(m: Metadata, a: str, c: Config) -> None:
    """Scales of attention, embeddings, residuals and logits."""
    m.u32(f"{a}.rope.dimension_count", c.hidden // max(c.n_heads, 1))
    for key, name in _SCALES.items():
        if c.get(name):
            m.f32(f"{a}.{key}", c.real(name))


FAMILY = replace(
    llama.FAMILY,
    arch="granite",
    architectures=("GraniteForCausalLM",),
    classes={"granite": class_defaults(
        32000, 2048, 4096, 11008, 32, 32, None, bos_token_id=1, eos_token_id=2, **MULTIPLIERS,
    )},
    assumes={
        **GATED_SILU, "head_dim": Assumed(lambda _, c: (c.hidden // max(c.n_heads, 1),), "runtimes share the width among heads"),
    },
    keys=(*(key for key in BASE if key is not key_value_length), vocab_size, scales),
    drops={f"{module}.*": "not part of the text model" for module in ("encoder", "projector")},
    rules=(),
)  # fmt: skip
