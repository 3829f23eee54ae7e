"""Opens whatever a user names as a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .. import sources
from ..rows import RowSource
from ..sources.checkpoint import Checkpoint
from .options import Options

#: endings of merge recipes
RECIPES = (".yml", ".yaml")


def open_source(source: str | os.PathLike[str], options: Options) -> Checkpoint:
    """The checkpoint ``source`` names.

    Raises
    ------
    BadInput, InputMissing, NoPermission : see the opener of each kind
    """
    path = Path(source)
    if path.suffix in RECIPES:
        from .. import merging

        return merging.open_recipe(
            path,
            lambda reference: open_source(reference, options),
            lenient=options.lenient,
            seed=options.seed,
            allow_crimes=options.allow_crimes,
        )
    return sources.open_checkpoint(source, io=options.io, weights=not options.vocab_only)


def open_rows(source: str | os.PathLike[str]) -> Mapping[str, RowSource]:
    """All tensors of ``source`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32."""
    return open_source(source, Options()).tensors
