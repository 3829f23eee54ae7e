"""Model families: what a checkpoint's tensors are called, how they change, and what metadata they need.

A family is one module of ``families`` with a ``FAMILY``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from .build import Model, build
from .config import architecture
from .families import FAMILIES
from .family import Family
from .keys import dense_features
from .multimodal import text_architecture
from .named import named
from .offered import offered
from .overrides import read_overrides
from .projectors import PROJECTORS


def family_of(checkpoint: Checkpoint) -> Family:
    """The family of ``checkpoint`` by its config.json.

    Raises
    ------
    BadInput : no family knows the architecture
    """
    name = architecture(checkpoint.config)
    if name not in FAMILIES:
        inner = text_architecture(checkpoint)
        if inner in FAMILIES:
            return FAMILIES[inner]
        raise BadInput(
            f"{checkpoint.folder / 'config.json'}: architecture {name!r} is not supported", _near(name, FAMILIES)
        )
    return FAMILIES[name]


def _near(name: str, known: Iterable[str]) -> str:
    """What to do about architecture ``name``, which is not among those that are ``known``."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.8)
    asked = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{asked}`streamconv families` lists what is supported."


def projector_of(checkpoint: Checkpoint) -> Family:
    """The projector of ``checkpoint`` by its config.json.

    Raises
    ------
    BadInput : none is known for the architecture
    """
    name = architecture(checkpoint.config)
    if name not in PROJECTORS:
        raise BadInput(
            f"{checkpoint.folder / 'config.json'}: {name!r} has no vision projector that can be written",
            _near(name, PROJECTORS),
        )
    return PROJECTORS[name]


def fixed_type(arch: str, name: str) -> str | None:
    """The type that runtimes expect of tensor ``name`` in a GGUF file of architecture ``arch``; None: that of the file.

    Only projectors have such tensors.
    """
    fixed = (family.forced_type(name) for family in PROJECTORS.values() if family.arch == arch)
    return next(filter(None, fixed), None)


__all__ = [
    "FAMILIES",
    "PROJECTORS",
    "Family",
    "Model",
    "build",
    "dense_features",
    "family_of",
    "fixed_type",
    "named",
    "offered",
    "projector_of",
    "read_overrides",
]
