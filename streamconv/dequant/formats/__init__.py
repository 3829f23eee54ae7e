"""The ways weights are stored, one file each: a module here that ends in ``FORMAT = Format(...)`` is one.

A module whose name begins with an underscore holds what several share.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ..format import Format

FORMATS: tuple[Format, ...] = tuple(
    import_module(f"{__name__}.{found.name}").FORMAT
    for found in pkgutil.iter_modules(__path__)
    if not found.name.startswith("_")
)
