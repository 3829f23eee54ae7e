"""Makes a plan from its recipe, in a process that was not told of it by a user."""

from __future__ import annotations

from typing import Any

from .adapter import prepare_adapter
from .outputs import prepare
from .prepared import Prepared
from .recipe import Recipe


def prepare_again(recipe: Recipe) -> Prepared:
    """The plan of ``recipe``; relative names are meant from the current folder.

    Raises
    ------
    StreamconvError : as ``prepare``, where this machine does not see what the other one does
    """
    if not recipe.extraction:
        return prepare(recipe.sources[0], recipe.output, recipe.options)
    from ..merging.extraction import Extraction, ModuleChoice

    told = dict(recipe.extraction)
    choice: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.pop("choice").items()}
    base, tuned = recipe.sources
    return prepare_adapter(base, tuned, recipe.output, Extraction(ModuleChoice(**choice), **told), recipe.options)
