"""Dream: Qwen 2 that fills in masks."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import GATED_SILU, Assumed
from . import qwen2
from .bert import looks_both_ways
from .rnd1 import mask

FAMILY = replace(
    qwen2.FAMILY,
    arch="dream",
    architectures=("DreamModel",),
    classes={},
    assumes={**GATED_SILU, "use_mrope": Assumed((False,))},
    keys=(*qwen2.FAMILY.keys, looks_both_ways),
    token_keys=(mask,),
)
