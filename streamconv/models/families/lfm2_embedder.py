"""Embedders of LFM 2: the bare model, in two directions or one; ColBERT's projection lies in a file of its own."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config, architecture
from . import lfm2


def directions(m: Metadata, a: str, c: Config) -> None:
    """Attention looks both ways in one of the classes."""
    if architecture(c.raw) == "Lfm2BidirectionalModel":
        m.boolean(f"{a}.attention.causal", False)


FAMILY = replace(
    lfm2.FAMILY,
    architectures=("Lfm2Model", "Lfm2BidirectionalModel"),
    keys=(*lfm2.FAMILY.keys, directions),
    names={**lfm2.FAMILY.names, "embedding_norm": "token_embd_norm"},
)
