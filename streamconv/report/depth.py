"""Tensors by what they are and how deep they lie: a row for every kind, a column for every layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

_NUMBER = re.compile(r"(?:^|(?<=[._]))\d+(?=[._]|$)")


class Named(Protocol):
    """What has a name and a shape."""

    @property
    def name(self) -> str:
        """Of the tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Slowest dimension first."""


T = TypeVar("T", bound=Named)


@dataclass
class Depth(Generic[T]):
    """Matrices of layers.

    Attributes
    ----------
    kinds : by kind and layer, in the order of the file; where a layer has several, such as experts, all of them
    outside : matrices that belong to no layer
    """

    kinds: dict[str, dict[int, list[T]]] = field(default_factory=dict)
    outside: list[T] = field(default_factory=list)

    @property
    def layers(self) -> tuple[int, int]:
        """The first and the last."""
        found = [layer for each in self.kinds.values() for layer in each]
        return min(found), max(found)


def by_depth(tensors: Iterable[T]) -> Depth[T]:
    """The matrices among ``tensors`` in their places; what has no number, or a number of its own only, is in no layer."""
    found: Depth[T] = Depth()
    alone: dict[str, list[T]] = {}
    for tensor in tensors:
        if len(tensor.shape) < 2:
            continue
        kind, layer = place_of(tensor.name)
        if layer is None:
            found.outside.append(tensor)
        else:
            found.kinds.setdefault(kind, {}).setdefault(layer, []).append(tensor)
            alone.setdefault(kind, []).append(tensor)
    for kind in [kind for kind, layers in found.kinds.items() if len(layers) < 2]:
        del found.kinds[kind]
        found.outside += alone[kind]
    labels = short(list(found.kinds))
    found.kinds = {labels[kind]: layers for kind, layers in found.kinds.items()}
    return found


def place_of(name: str) -> tuple[str, int | None]:
    """The name without its first number, and that number; further numbers, such as those of experts, become ``*``.

    >>> place_of("blk.3.ffn_up.weight"), place_of("model.layers.3.mlp.experts.12.w1.weight"), place_of("output.weight")
    (('blk.ffn_up.weight', 3), ('model.layers.mlp.experts.*.w1.weight', 3), ('output.weight', None))
    """
    found = _NUMBER.search(name)
    if found is None or len(found[0]) > 6:
        return name, None
    before, behind = name[: found.start()].rstrip("._"), _NUMBER.sub("*", name[found.end() :])
    return (before + behind).lstrip("._"), int(found[0])


def short(kinds: Sequence[str]) -> dict[str, str]:
    """Names without what all of them begin with, and without ``.weight``.

    >>> short(["blk.attn_q.weight", "blk.ffn_up.weight"])
    {'blk.attn_q.weight': 'attn_q', 'blk.ffn_up.weight': 'ffn_up'}
    """
    parts = [kind.removesuffix(".weight").split(".") for kind in kinds]
    n = 0
    while all(len(p) > n + 1 for p in parts) and len({p[n] for p in parts}) == 1:
        n += 1
    labels = [".".join(p[n:]) for p in parts]
    return dict(zip(kinds, labels if len(set(labels)) == len(labels) else kinds, strict=True))
