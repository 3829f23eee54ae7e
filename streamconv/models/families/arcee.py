"""Arcee: the Llama layout with networks that square and have no gate."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from ..config import head_width
from ..family import class_defaults
from ..keys import pooling_type
from . import llama

FAMILY = replace(
    llama.FAMILY,
    arch="arcee",
    architectures=("ArceeForCausalLM",),
    classes={"arcee": class_defaults(
        32000, 4096, 2560, 18432, 32, 32, None, head_dim=head_width, rms_norm_eps=1e-5, hidden_act="relu2",
        bos_token_id=128000, eos_token_id=128001,
    )},
    assumes={**GATED_SILU, "hidden_act": Assumed(("relu2",))},
    keys=(*llama.FAMILY.keys, pooling_type),
)  # fmt: skip
