"""The model families, one file each: a module here that ends in ``FAMILY = Family(...)`` is a family."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ..family import Family

#: Hugging Face architecture -> family
FAMILIES: dict[str, Family] = {}
for _found in pkgutil.iter_modules(__path__):
    _family: Family = import_module(f"{__name__}.{_found.name}").FAMILY
    for _architecture in _family.architectures:
        if _architecture in FAMILIES:
            raise RuntimeError(f"two families claim {_architecture}")
        FAMILIES[_architecture] = _family
