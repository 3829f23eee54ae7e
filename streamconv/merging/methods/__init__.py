"""The merge methods, one file each: a module here that ends in ``METHOD = Method(...)`` is a method.

A module whose name begins with an underscore holds what several share.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ..method import Method, Operator, Parameter, Task

__all__ = ["METHODS", "Method", "Operator", "Parameter", "Task"]

#: by the spelling in recipes
METHODS: dict[str, Method] = {}
for _found in pkgutil.iter_modules(__path__):
    if not _found.name.startswith("_"):
        _method: Method = import_module(f"{__name__}.{_found.name}").METHOD
        if _method.name in METHODS:
            raise RuntimeError(f"two methods are called {_method.name}")
        METHODS[_method.name] = _method
