"""Opens whatever a user names as a source."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import sources
from ..rows import RowSource
from ..sources.checkpoint import Checkpoint
from .options import Options


def open_source(source: str | os.PathLike[str], options: Options) -> Checkpoint:
    """The checkpoint ``source`` names.

    Raises
    ------
    BadInput, InputMissing, NoPermission : see the opener of each kind
    """
    return sources.open_checkpoint(source, io=options.io, weights=not options.vocab_only)


def open_rows(source: str | os.PathLike[str]) -> Mapping[str, RowSource]:
    """All tensors of ``source`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32."""
    return open_source(source, Options()).tensors
