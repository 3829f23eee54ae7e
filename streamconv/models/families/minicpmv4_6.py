"""MiniCPM-V 4.6: the text model is a Qwen 3.5; its projector is a file of its own."""

from __future__ import annotations

from dataclasses import replace

from ..names import why_not_of_text
from . import qwen35


def why_not(name: str) -> str | None:
    """Why a tensor is not part of the text model."""
    return "not part of the text model" if name.startswith("model.merger.") else why_not_of_text(name)


FAMILY = replace(
    qwen35.FAMILY,
    architectures=("MiniCPMV4_6ForConditionalGeneration",),
    why_not=why_not,
)
