"""The ways weights are stored, one file each: a module here that ends in ``FORMAT = Format(...)`` is one.

A module whose name begins with an underscore holds what several share. One of another package is known by the ``quant_method``
of config.json that it is for.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ...found import Plugins
from ..format import Format

FORMATS: tuple[Format, ...] = tuple(
    import_module(f"{__name__}.{found.name}").FORMAT
    for found in pkgutil.iter_modules(__path__)
    if not found.name.startswith("_")
)
#: of other packages, by ``quant_method``
PLUGINS = Plugins("streamconv.formats", Format)


def formats_for(method: str) -> tuple[Format, ...]:
    """Those that look for their tensors where config.json says ``method``: ours, and another package's that is named so.

    Raises
    ------
    UsageError : two are for that method, or the package cannot be imported; names it
    """
    own = next((form.find.__module__ for form in FORMATS if method in form.methods), "")
    added = PLUGINS.get(method, own) if method else None
    return FORMATS if added is None else (*FORMATS, added)
