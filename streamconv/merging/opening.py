"""A recipe file as a checkpoint.

A file may hold several documents: those with a ``name`` are models that the others refer to by it, the one without is the
output. They are row sources like any model, so every tensor goes through all stages at once and nothing is stored in between;
each stage still rounds to its own ``dtype``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from . import lora
from .assembly import assemble
from .binding import MergeOptions
from .mixture import Mixture, assemble_mixture, parse_mixture
from .opener import Open, Opener, OpenStates
from .parse import Parser
from .recipe import Recipe
from .yaml_text import read_documents


def open_recipe(
    path: Path,
    open_model: Open,
    *,
    open_adapter: Open | None = None,
    open_states: OpenStates | None = None,
    lenient: bool = False,
    seed: int = 0,
    allow_crimes: bool = False,
) -> Checkpoint:
    """Open the merge that the recipe ``path`` describes. Reads headers, configurations and tokenizers, no weights.

    Parameters
    ----------
    open_model : opens a model by its reference (a path as the recipe spells it, or ``id@revision``)
    open_adapter : the same for adapters; None: they are local folders
    open_states : see ``OpenStates``; None: no model can be run, and gates that need it are refused
    lenient : unknown keys are warnings, not errors
    seed : of the random methods
    allow_crimes : merge models of different architectures

    Returns
    -------
    Checkpoint : tensors are merged row sources; those with a ``prepare`` method need a pass over their inputs first, which
        ``read`` does unless ``prepare`` was called before

    Raises
    ------
    BadInput, UsageError, InputMissing, NoPermission : what is wrong with the recipe or its models, before any weight is read
    """
    opener = Opener(
        open_model,
        open_adapter or (lambda reference: lora.open_adapter(Path(reference))),
        path,
        MergeOptions(seed=seed, allow_crimes=allow_crimes),
        lenient,
        open_states,
    )
    return _Documents(path, opener).output()


class _Documents:
    """The documents of one file."""

    def __init__(self, path: Path, opener: Opener) -> None:
        self._path = path
        self._opener = opener
        found = read_documents(path)
        self._text = found[0][1] if len(found) == 1 else "---\n".join(text for _, text in found)
        several = len(found) > 1
        parsed = [
            self._parse(value, text, f"{path}, document {number}" if several else str(path), several)
            for number, (value, text) in enumerate(found, 1)
        ]
        self._named = {d.name: d for d in parsed if d.name is not None}
        self._unnamed = [d for d in parsed if d.name is None]
        names = [d.name for d in parsed if d.name is not None]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise BadInput(f"{path}: two documents have the name {twice!r}", "Every name must be unique.")
        if len(self._unnamed) != 1:
            raise BadInput(
                f"{path}: {len(self._unnamed)} of {len(parsed)} documents have no name",
                "Exactly one document, the output, goes without a name.",
            )
        self._being_opened: list[str] = []
        self._used: set[str] = set()
        opener.stages = {name: lambda name=name: self._stage(name) for name in names}  # type: ignore[misc]

    def _parse(self, value: Any, text: str, where: str, several: bool) -> Recipe | Mixture:
        parser = Parser(where, self._opener.lenient, self._opener.warnings)
        if isinstance(value, Mapping) and "experts" in value:
            return parse_mixture(parser, value, text, several)
        return parser.recipe(value, text, several)

    def output(self) -> Checkpoint:
        """The checkpoint of the document without a name."""
        found = self._assemble(self._unnamed[0])
        unused = [name for name in self._named if name not in self._used]
        if unused:
            self._opener.warnings.append(f"{self._path}: nothing refers to the documents {', '.join(unused)}")
        found.warnings[:] = list(dict.fromkeys(found.warnings))
        return found

    def _stage(self, name: str) -> Checkpoint:
        if name in self._being_opened:
            circle = [*self._being_opened[self._being_opened.index(name) :], name]
            raise BadInput(
                f"{self._path}: documents refer to each other in a cycle: {' → '.join(circle)}",
                "Rename a document, if one of these is meant to be a model of that name.",
            )
        self._being_opened.append(name)
        self._used.add(name)
        try:
            return self._assemble(self._named[name])
        finally:
            self._being_opened.pop()

    def _assemble(self, document: Recipe | Mixture) -> Checkpoint:
        if isinstance(document, Mixture):
            return assemble_mixture(document, self._opener, self._path, self._text)
        return assemble(document, self._opener, self._path, self._text)
