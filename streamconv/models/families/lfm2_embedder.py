"""Embedders of LFM 2: the bare model, in two directions or one; ColBERT's projection lies in a folder of its own."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config, architecture
from . import lfm2

_PROJECTION = "dense_2.weight"


def directions(m: Metadata, a: str, c: Config) -> None:
    """Attention looks both ways in one of the classes."""
    if architecture(c.raw) == "Lfm2BidirectionalModel":
        m.boolean(f"{a}.attention.causal", False)


def length_out(m: Metadata, a: str, c: Config) -> None:
    """Width of what the projection makes of the vectors of tokens."""
    rows = c.checkpoint.tensors.get(_PROJECTION) if c.checkpoint is not None else None
    if rows is not None:
        m.u32(f"{a}.embedding_length_out", rows.shape[0])


FAMILY = replace(
    lfm2.FAMILY,
    architectures=("Lfm2Model", "Lfm2BidirectionalModel"),
    keys=(*lfm2.FAMILY.keys, directions, length_out),
    modules={"1_Dense": _PROJECTION},
    names={**lfm2.FAMILY.names, "embedding_norm": "token_embd_norm", "dense_2": "dense_2"},
)
