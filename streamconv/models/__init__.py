"""Model families: what a checkpoint's tensors are called, how they change, and what metadata they need.

A family is one module of ``families`` with a ``FAMILY``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import BadInput, UsageError
from ..metadata import Metadata
from ..sources.checkpoint import Checkpoint
from .build import Model, build, renamed
from .config import architecture, tower_architectures
from .families import FAMILIES
from .family import Family
from .general import general_metadata
from .keys import dense_features
from .multimodal import LEGACY, text_architecture
from .named import named
from .offered import offered
from .overrides import read_overrides
from .projectors import PROJECTOR_TYPES, PROJECTORS


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
            f"{checkpoint.called('config.json')}: architecture {name!r} is not supported", _near(name, FAMILIES)
        )
    return FAMILIES[name]


def dspark_of(checkpoint: Checkpoint) -> Family:
    """The family of the DSpark draft that lies in ``checkpoint``, behind the model itself.

    Raises
    ------
    UsageError : such drafts lie in no checkpoint of its family
    BadInput : there is none in this one
    """
    family = family_of(checkpoint)
    if family.arch != "deepseek4":
        raise UsageError(f"--dspark has no effect on {family.arch!r}, but on DeepSeek V4 only", "Leave it out.")
    if not any(".main_proj." in name for name in checkpoint.tensors):
        raise BadInput(f"{checkpoint.path} has no DSpark draft: there is no tensor 'mtp.0.main_proj.weight'")
    return FAMILIES["DeepseekV4DSparkModel"]


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
    names = tower_architectures(checkpoint.config)
    found = next((name for name in names if name in PROJECTORS), None)
    if found is None:
        said = names[-1] if names else ""
        raise BadInput(
            f"{checkpoint.called('config.json')}: {said!r} has no projector that can be written",
            LEGACY if said.startswith("Llava") else _near(said, PROJECTORS),
        )
    return PROJECTORS[found]


def fixed_type(metadata: Metadata, name: str) -> str | None:
    """The type that runtimes expect of tensor ``name`` in the GGUF file with ``metadata``; None: that of the file.

    Only projectors have such tensors.
    """
    kinds = {metadata.get(key) for key in PROJECTOR_TYPES} if metadata.get("general.architecture") == "clip" else set()
    families = [family for family in PROJECTORS.there() if kinds & {*family.projectors}] if kinds != {None} else []
    return next(filter(None, (family.forced_type(name) for family in families)), None)


__all__ = [
    "FAMILIES",
    "PROJECTORS",
    "Family",
    "Model",
    "build",
    "dense_features",
    "dspark_of",
    "family_of",
    "fixed_type",
    "general_metadata",
    "named",
    "offered",
    "projector_of",
    "read_overrides",
    "renamed",
]
