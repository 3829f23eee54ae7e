"""Sarashina 2 Vision: Llama beside a tower, and a norm of the whole that nothing uses."""

from __future__ import annotations

from dataclasses import replace

from . import llama

FAMILY = replace(
    llama.FAMILY,
    architectures=("Sarashina2VisionForCausalLM",),
    classes={},
    spelled=lambda name, _: name.removeprefix("llm."),
    drops={"norm.*": "a norm of the whole that nothing uses"},
    idle=("image_token_index", "start_image_token_index"),
)
