"""EmbeddingGemma: Gemma 3 that looks both ways, which runtimes know by the architecture."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from ..keys import dense_features, pooling_type
from . import gemma3

FAMILY = replace(
    gemma3.FAMILY,
    arch="gemma-embedding",
    architectures=("Gemma3TextModel",),
    assumes={**gemma3.FAMILY.assumes, "use_bidirectional_attention": Assumed((True,))},
    keys=(*gemma3.FAMILY.keys, dense_features, pooling_type),
)
