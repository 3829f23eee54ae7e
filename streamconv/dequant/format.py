"""What a stored encoding is: how its tensors are recognised, and what is known of them beforehand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from .store import Store

#: what most parts belong to
LOST = "an encoded weight, which is missing or of another type"


@dataclass(frozen=True)
class Format:
    """One way weights are stored.

    Attributes
    ----------
    find : recognises its tensors by their companions and puts rows in their place; two formats never claim the same tensor,
        so their order does not matter. BadInput where a part is missing or does not fit
    methods : what config.json calls it (``quant_method``)
    parts : ending (a regular expression) of a tensor that makes no sense alone -> what it is a part of
    likely_parts : the same for endings that plain models may have too; they count where config.json names any method
    settings : keys of its section that it reads, or that change no weight; any other that says something is refused. None: the
        format looks after that itself
    check : looks at the section before the tensors; BadInput where it says what the format cannot decode
    """

    find: Callable[[Store], None]
    methods: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    likely_parts: Mapping[str, str] = field(default_factory=dict)
    settings: Collection[str] | None = None
    check: Callable[[Store], None] = lambda store: None
