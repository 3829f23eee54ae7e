"""Opens the models of a recipe, each once, with their adapters applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from . import lora
from .binding import MergeOptions
from .keys import naming
from .references import ModelRef

Open = Callable[[str], Checkpoint]
#: token ids of each positive and of each negative prompt
Prompts = tuple[list[list[int]], list[list[int]]]
#: (model, prompts of every expert, whether all tokens of a prompt count or its last one) -> the directions of the prompts before
#: every layer, float32[n_layers * n_experts, hidden]
OpenStates = Callable[[Checkpoint, Sequence[Prompts], bool], Rows]


@dataclass
class Opener:
    """Opens the models a recipe names, each once.

    Attributes
    ----------
    open_model, open_adapter : given the text of a reference
    open_states : runs a model; None where nothing can
    recipe : the file that names them, for messages
    lenient : unknown keys are warnings
    stages : models that are documents of the same file, by name
    leaves : references of the models that were opened, stages and adapters aside
    """

    open_model: Open
    open_adapter: Open
    recipe: Path
    options: MergeOptions = field(default_factory=MergeOptions)
    lenient: bool = False
    open_states: OpenStates | None = None
    stages: Mapping[str, Callable[[], Checkpoint]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    leaves: list[str] = field(default_factory=list)
    _models: dict[str, Checkpoint] = field(default_factory=dict)

    def model(self, reference: ModelRef) -> Checkpoint:
        """The model with its adapter applied."""
        if str(reference) not in self._models:
            self._models[str(reference)] = self._open(reference)
        return self._models[str(reference)]

    def _open(self, reference: ModelRef) -> Checkpoint:
        if reference.lora is not None:
            base = self.model(ModelRef(reference.path, reference.revision))
            with naming(str(self.recipe)):
                found = lora.with_adapter(base, self.open_adapter(reference.lora))
            known = {*self.warnings, *base.warnings}
            self.warnings += [f"{reference}: {text}" for text in found.warnings if text not in known]
            return found
        if reference.revision is None and reference.path in self.stages:
            return self.stages[reference.path]()
        with naming(str(self.recipe)):
            opened = self.open_model(reference.model)
        self.leaves.append(reference.model)
        name = f"{reference.model}: "
        self.warnings += [name + text.removeprefix(name) for text in opened.warnings]
        return opened

    def models(self, references: Iterable[ModelRef]) -> dict[str, Checkpoint]:
        """All of ``references``, in their order."""
        return {str(reference): self.model(reference) for reference in references}
