"""Modules of kernels are loaded by name when their first kernel is called, for numba takes a while to load."""

from __future__ import annotations

import sys
from functools import cache as once
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from ..limits import require_room_for_kernels

#: what names that begin with a dot are relative to
PACKAGE = __name__.partition(".")[0]


@once
def load(module: str) -> Any:
    """A module of kernels. The first one brings numba along.

    Parameters
    ----------
    module : its full name, or that below ``streamconv``, with a dot before it: ``.quant.formats.q4_k``

    Raises
    ------
    MemoryError : there is not enough memory to compile it
    """
    require_room_for_kernels()
    if "numba" not in sys.modules:
        sys.meta_path.insert(0, _NumbaSettings())
    return import_module(module, PACKAGE)


class _NumbaSettings(MetaPathFinder):
    """Lets numba's settings come from the environment alone.

    numba also takes them from a file in the working folder, which may have come with a model; one of the settings names a file
    that numba writes.
    """

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of ``numba.core.config`` as it is found without us, but for the name of that file."""
        if name != "numba.core.config":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)  # type: ignore[arg-type]
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _WithoutFile(name, spec.loader.path)
        return spec


class _WithoutFile(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        if code is None:
            return None
        return code.replace(co_consts=tuple("" if c == ".numba_config.yaml" else c for c in code.co_consts))
