"""SmolLM 3: the Llama layout without positions in every fourth layer, which runtimes know."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from ..family import class_defaults
from . import llama

FAMILY = replace(
    llama.FAMILY,
    arch="smollm3",
    architectures=("SmolLM3ForCausalLM",),
    classes={"smollm3": class_defaults(
        128256, 32768, 2048, 11008, 36, 16, 4, tie_word_embeddings=True, bos_token_id=128000, eos_token_id=128001,
        pad_token_id=128004, rope_parameters={"rope_type": "default", "rope_theta": 2000000.0},
    )},
    assumes={
        **GATED_SILU, "no_rope_layer_interval": Assumed((4,)),
        "no_rope_layers": Assumed(lambda _, c: ([int((n + 1) % 4 != 0) for n in range(c.n_layers)],)),
    },
    idle=("sliding_window",),
)  # fmt: skip
