"""The kinds of outputs, one file each: a module here that ends in ``TARGET = Target(...)`` is one."""

from __future__ import annotations

from ...found import Found
from ..target import Target

#: ``Target.name`` -> target
TARGETS = Found(__name__, __path__, Target, lambda target: (target.name,))
