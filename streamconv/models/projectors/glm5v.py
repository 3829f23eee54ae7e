"""GLM 5V: the vision tower of Kimi K2.5, whose projection has other names."""

from __future__ import annotations

from dataclasses import replace

from . import kimi_k25

_NAMES = {"pre_norm": "mm.input_norm", "linear_1": "mm.1", "linear_2": "mm.2"}

FAMILY = replace(
    kimi_k25.FAMILY,
    architectures=("Glm5vForConditionalGeneration",),
    names={f"mm_projector.{theirs}": ours for theirs, ours in _NAMES.items()},
)
