"""Olmo 1: the Llama layout with norms that have no weights."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from . import llama


def norms(m: Metadata, a: str, c: Config) -> None:
    """The epsilon of the class, and the bound of queries, keys and values where there is one."""
    m.f32(f"{a}.attention.layer_norm_epsilon", 1e-5)
    if c.get("clip_qkv") is not None:
        m.f32(f"{a}.attention.clamp_kqv", c.real("clip_qkv"))


FAMILY = replace(
    llama.FAMILY,
    arch="olmo",
    architectures=("OlmoForCausalLM", "OLMoForCausalLM"),
    tokenizer=BPE,
    classes={"olmo": class_defaults(
        50304, 2048, 4096, 11008, 32, 32, None, rms_norm_eps=None, eos_token_id=50279, pad_token_id=1,
    )},
    assumes=GATED_SILU,
    keys=(*BASE, norms),
    rules=(),
)  # fmt: skip
