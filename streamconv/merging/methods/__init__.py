"""The merge methods, one file each: a module here that ends in ``METHOD = Method(...)`` is a method.

A module whose name begins with an underscore holds what several share.
"""

from __future__ import annotations

from ...found import Found
from ..method import Method, Operator, Parameter, Task

__all__ = ["METHODS", "Method", "Operator", "Parameter", "Task"]

#: by the spelling in recipes
METHODS = Found(__name__, __path__, Method, lambda method: (method.name,))
