"""Olmo 2 and 3: norms behind each sublayer and on all queries and keys; Olmo 3 has windows in three of four layers."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed, layers
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, sliding_window
from ..tokenizers import BPE
from ._layers import window_pattern


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, and which layers have it."""
    if c.get("sliding_window") is None:
        return
    sliding_window(m, a, c)
    window_pattern(4)(m, a, c)


_SHAPE = {"rms_norm_eps": 1e-5, "eos_token_id": 50279, "pad_token_id": 1}
FAMILY = Family(
    arch="olmo2",
    architectures=("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    tokenizer=BPE,
    classes={
        "olmo2": class_defaults(50304, 2048, 4096, 11008, 32, 32, None, **_SHAPE),
        "olmo3": class_defaults(
            50304, 2048, 4096, 11008, 32, 32, None, sliding_window=4096, rope_parameters={
                kind: {"rope_type": "default", "rope_theta": 500000.0} for kind in ("full_attention", "sliding_attention")},
            **_SHAPE,
        ),
    },
    assumes={
        **GATED_SILU, "layer_types": Assumed(
            lambda stated, c: (stated,) if c.get("sliding_window") else (["full_attention"] * c.n_layers,), layers(1).otherwise,
        ),
    },
    keys=(*BASE, windows),
)  # fmt: skip
