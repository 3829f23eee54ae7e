"""What a recipe says, before any model is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .references import ModelRef
from .settings import Setting
from .vocabulary.settings import VocabularySettings

Parameters = Mapping[str, Setting]


@dataclass(frozen=True)
class Source:
    """One input of a slice.

    Attributes
    ----------
    layer_range : ``(start, stop)`` of its layers, of none where these are equal; None: all of them
    """

    model: ModelRef
    layer_range: tuple[int, int] | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Some consecutive layers of the output: layer ``j`` is merged from layer ``start + j`` of every source."""

    sources: tuple[Source, ...]
    base_model: ModelRef | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """What a module of the output is made of.

    Attributes
    ----------
    slices : its slices in order
    whole : written as a list of models, that is, one slice of all layers
    """

    slices: tuple[Slice, ...]
    whole: bool
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One document.

    Attributes
    ----------
    where : what it is, for messages
    text : the document as written
    method : ``merge_method``
    stack : for every module of the model; None when ``modules`` are given one by one
    modules : module name -> stack
    dtype : inputs are rounded to it as they are read, and what is merged, ``F32``, ``F16`` or ``BF16``; None: inputs are taken
        as they are, and what is merged is rounded to the smallest type that holds all inputs
    out_dtype : precision of the output, to which that is rounded; None: none other
    name : how other documents refer to it
    """

    where: str
    text: str
    method: str
    stack: Stack | None
    modules: Mapping[str, Stack]
    base_model: ModelRef | None = None
    parameters: Parameters = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    vocabulary: VocabularySettings | None = None
    name: str | None = None

    def stacks(self) -> list[Stack]:
        """All stacks."""
        return [self.stack] if self.stack is not None else list(self.modules.values())

    def references(self) -> Iterator[ModelRef]:
        """The models that are merged: the base first, then in the order of the recipe; repeated as it repeats them."""
        if self.base_model is not None:
            yield self.base_model
        for stack in self.stacks():
            for part in stack.slices:
                if part.base_model is not None:
                    yield part.base_model
                for source in part.sources:
                    yield source.model
