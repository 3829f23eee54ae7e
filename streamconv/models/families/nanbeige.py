"""Nanbeige: the Llama layout, run through several times."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import llama


def loops(m: Metadata, a: str, c: Config) -> None:
    """How often, and whether the last norm is left out in between."""
    stated = c.get("num_loops")
    m.u32(f"{a}.num_loops", stated if isinstance(stated, int) and stated > 0 else 1)
    m.boolean(f"{a}.skip_loop_final_norm", bool(c.get("skip_loop_final_norm")))


FAMILY = replace(
    llama.FAMILY, arch="nanbeige", named_as="llama", architectures=("NanbeigeForCausalLM",), classes={},
    keys=(*llama.FAMILY.keys, loops),
)  # fmt: skip
