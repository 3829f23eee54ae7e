"""The numbers that expressions of the table may use, as a loader derives them from the metadata.

A name is, in this order: one of ``let`` (an expression, of this architecture or of all), one of ``derived`` (an expression),
one of ``names`` (a key with what stands for it when it is absent, 0 unless said otherwise), or one of those below. ``NAME_i`` is
that of layer ``i``, ``NAME_0`` that of the first layer; a bare name of a key with one number per layer is that of the first layer,
as loaders read it.

    i                the layer
    n_vocab          number of tokens, else the key vocab_size
    longrope         rope.scaling.type is longrope
    has NAME         1 where the file has this tensor, else 0
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..metadata import Metadata
from .expressions import NotStated, evaluate, summed
from .table import derived_names, keyed_names

#: beginnings of keys that do not begin with the architecture
_GLOBAL = ("tokenizer.", "xielu.")


@dataclass(frozen=True, eq=False)
class Stated:
    """What a model states, which names are taken from.

    Attributes
    ----------
    metadata : its key/values
    tensors : the names of its tensors
    arch : its architecture
    let : names of this architecture and of all -> expression
    required : keys without which nothing is known: no number stands for them
    n_vocab : number of tokens
    """

    metadata: Metadata
    tensors: Collection[str] = ()
    arch: str = ""
    let: Mapping[str, str] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    n_vocab: int = 0

    @cached_property
    def _scopes(self) -> dict[tuple[int, int], Scope]:
        return {}

    def scope(self, layer: int = 0, base: int = 0) -> Scope:
        """The names expressions may use, as seen from one layer."""
        if (layer, base) not in self._scopes:
            self._scopes[layer, base] = Scope(self, layer, base)
        return self._scopes[layer, base]

    def full(self, key: str) -> str:
        """The full key of a hyper-parameter, or of what has the same key in all architectures."""
        return key if key.startswith(_GLOBAL) else f"{self.arch}.{key}"

    def plain(self, key: str) -> Any:
        """The plain value of a key, None when it is absent."""
        return self.metadata.get(self.full(key))


@dataclass(frozen=True, eq=False)
class Scope(Mapping[str, "int | None"]):
    """The names as seen from one layer.

    Attributes
    ----------
    stated : the model
    layer : what ``i`` is
    base : the layer whose numbers bare names stand for
    """

    stated: Stated
    layer: int = 0
    base: int = 0

    @cached_property
    def _seen(self) -> dict[str, int | None]:
        return {}

    def __getitem__(self, name: str) -> int | None:
        if name not in self._seen:
            self._seen[name] = self._find(name)
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        yield from ("i", "n_vocab", "longrope", *self.stated.let, *derived_names(), *keyed_names())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def evaluated(self, expression: str) -> int | None:
        """The value of an expression, None when the file does not say enough."""
        return _or_none(expression, self)

    def missing_keys(self, expression: str) -> set[str]:
        """The keys that are absent, though their number goes into the expression's value."""
        return {key for name in summed(expression, self) for key in self._missing(name)}

    def _find(self, name: str) -> int | None:
        stated = self.stated
        if name == "i":
            return self.layer
        if name.startswith("has "):
            return int(name[4:].replace("*", str(self.layer)) in stated.tensors)
        if name == "n_vocab":
            return stated.n_vocab
        if name == "longrope":
            return int(stated.plain("rope.scaling.type") == "longrope")
        if name in stated.let:
            return _or_none(stated.let[name], self)
        if name in derived_names():
            return _or_none(derived_names()[name], self._at(self.base))
        if name in keyed_names():
            return self._of_key(keyed_names()[name])
        stem, _, which = name.rpartition("_")
        if which not in ("i", "0"):
            raise KeyError(name)
        return self._at(self.layer if which == "i" else 0)[stem]

    def _of_key(self, spec: str) -> int | None:
        key, _, default = spec.partition(" = ")
        if key.startswith("#"):
            stored = self.stated.metadata.values.get(self.stated.full(key[1:]))
            return len(stored.value) if stored is not None and stored.type == "ARRAY" else int(default or 0)
        found = self.stated.plain(key)
        if found is None:
            return None if key in self.stated.required else _or_none(default or "0", self._at(self.base))
        if isinstance(found, list):
            found = found[self.base] if self.base < len(found) else None
        return int(found) if isinstance(found, int) else None

    def _missing(self, name: str) -> set[str]:
        if name in self.stated.let:
            return self.missing_keys(self.stated.let[name])
        if name in derived_names():
            return self.missing_keys(derived_names()[name])
        if name in keyed_names():
            key, _, default = keyed_names()[name].partition(" = ")
            if key.startswith("#") or default or self.stated.plain(key) is not None:
                return set()
            return {self.stated.full(key)}
        stem = name.rpartition("_")[0]
        return self._missing(stem) if stem else set()

    def _at(self, layer: int) -> Scope:
        if layer == self.layer == self.base:
            return self
        return self.stated.scope(layer, layer)


def _or_none(expression: str, names: Mapping[str, int | None]) -> int | None:
    try:
        return evaluate(expression, names)
    except NotStated:
        return None
