"""Mistral 7B and its kin: the Llama layout with other defaults; the sliding window is not written, as runtimes expect."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, WINDOW_IGNORED
from ..config import head_width
from ..family import class_defaults
from . import llama

FAMILY = replace(
    llama.FAMILY,
    architectures=("MistralForCausalLM",),
    classes={"mistral": class_defaults(
        32000, 131072, 4096, 14336, 32, 32, 8, head_dim=head_width, sliding_window=4096, bos_token_id=1, eos_token_id=2,
    )},
    assumes={**GATED_SILU, "sliding_window": WINDOW_IGNORED},
)  # fmt: skip
