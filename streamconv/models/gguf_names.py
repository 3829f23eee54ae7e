"""What the ``gguf`` package calls the tensors of an architecture, for every spelling of them in checkpoints that it knows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGE = "streamconv._gguf_tables"
_GLUED = re.compile(r"[^.]\{bid\}")
#: far more than any projector has layers or convolutions that are numbered so
_MOST_GLUED = 16


@cache
def _module(name: str) -> Any:
    """A module of the package; without the package itself, whose readers and writers take ten times as long to import."""
    if "gguf" in sys.modules:
        return import_module(f"gguf.{name}")
    if _PACKAGE not in sys.modules:
        found = find_spec("gguf")
        package = ModuleType(_PACKAGE)
        package.__path__ = list(found.submodule_search_locations or ()) if found else []
        sys.modules[_PACKAGE] = package
    return import_module(f"{_PACKAGE}.{name}")


def known_names(arch: str) -> Iterator[tuple[str, str]]:
    """``(name in a checkpoint, GGUF name)``, mostly without suffix, with ``{bid}`` for a block's number; the last of two holds.

    Nothing where the package does not know ``arch``.
    """
    constants, tables = _module("constants"), _module("tensor_mapping").TensorNameMap
    number = next((n for n, name in constants.MODEL_ARCH_NAMES.items() if name == arch), None)
    own = constants.MODEL_TENSORS.get(number, ())
    blocks = {**tables.block_mappings_cfg, **tables.arch_block_mappings_cfg.get(number, {})}
    for table in (tables.mappings_cfg, blocks):
        for tensor, names in table.items():
            if tensor in own:
                for name in names:
                    yield from _with_glued_numbers(name, constants.TENSOR_NAMES[tensor])


def _with_glued_numbers(name: str, target: str) -> Iterator[tuple[str, str]]:
    """``(name, target)``; where a number is only the end of a part of ``name``, as in ``linear_{bid}``, with each there may be."""
    if _GLUED.search(name) is None:
        yield name, target
        return
    for number in range(_MOST_GLUED):
        yield name.replace("{bid}", str(number)), target.replace("{bid}", str(number))
