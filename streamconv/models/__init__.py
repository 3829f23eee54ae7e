"""Model families: what a checkpoint's tensors are called, how they change, and what metadata they need.

A family is one module with a ``FAMILY``; adding one means adding its module here.
"""

from __future__ import annotations

import difflib

from ..errors import BadInput
from ..sources.checkpoint import Checkpoint
from . import gemma, gemma2, gemma3, llama, mistral, qwen2, qwen3
from .build import Model, build
from .config import architecture
from .family import Family
from .multimodal import text_architecture
from .projector import build_projector

_FAMILIES: tuple[Family, ...] = tuple(m.FAMILY for m in (llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3))

#: Hugging Face architecture -> family
FAMILIES: dict[str, Family] = {}
for _family in _FAMILIES:
    for _name in _family.architectures:
        if _name in FAMILIES:
            raise RuntimeError(f"two families claim {_name}")
        FAMILIES[_name] = _family


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
        near = difflib.get_close_matches(name, FAMILIES, n=3)
        raise BadInput(
            f"{checkpoint.folder / 'config.json'}: architecture {name!r} is not supported",
            f"Supported: {', '.join(near or sorted(FAMILIES))}.",
        )
    return FAMILIES[name]


__all__ = ["FAMILIES", "Family", "Model", "build", "build_projector", "family_of"]
