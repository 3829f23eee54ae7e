"""Experts whose weights are blocks of four-bit floats already, which are copied and come first."""

from __future__ import annotations

from ...metadata import Metadata
from ..config import Config
from ..rules import Rule

#: number of the type of files that have such blocks
_MXFP4_FILE = 38


def as_blocks(rule: Rule) -> Rule:
    """The rule for experts stored as such."""
    return rule._replace(sources=tuple(f"{source}:MXFP4" for source in rule.sources), first=True)


def counts_as_blocks(m: Metadata, _a: str, c: Config) -> None:
    """A file with such blocks counts as one of them, whatever types it has besides."""
    tensors = c.checkpoint.tensors.values() if c.checkpoint is not None else ()
    if any(rows.native("MXFP4", 0, 0) is not None for rows in tensors):
        m.u32("general.file_type", _MXFP4_FILE)
