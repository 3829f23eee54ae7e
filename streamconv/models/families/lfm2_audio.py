"""LFM 2 Audio: LFM 2 between what hears and what speaks."""

from __future__ import annotations

from dataclasses import replace

from . import lfm2

_SPEECH = "what makes speech"

FAMILY = replace(
    lfm2.FAMILY,
    architectures=("Lfm2AudioForConditionalGeneration",),
    names={**lfm2.FAMILY.names, "embedding_norm": "token_embd_norm"},
    drops=dict.fromkeys(("codebook_offsets", "depth_*", "depthformer.*"), _SPEECH),
)
