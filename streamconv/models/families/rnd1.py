"""RND1: a Qwen 3 mixture that fills in masks."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import qwen3moe
from .bert import looks_both_ways


def mask(m: Metadata, _a: str, c: Config) -> None:
    """The token to fill in."""
    if c.get("mask_token_id") is not None:
        m.u32("tokenizer.ggml.mask_token_id", c.integer("mask_token_id"))


FAMILY = replace(
    qwen3moe.FAMILY,
    arch="rnd1",
    architectures=("RND1",),
    classes={},
    idle=(*qwen3moe.FAMILY.idle, "moe_backend", "num_diffusion_steps", "rnd1_*"),
    keys=(*qwen3moe.FAMILY.keys, looks_both_ways),
    token_keys=(mask,),
)
