"""The merge methods by name, one file each."""

from __future__ import annotations

from . import (
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    linear,
    passthrough,
    slerp,
    task_arithmetic,
    ties,
)
from .base import Method, Operator, Parameter, Task

__all__ = ["METHODS", "Method", "Operator", "Parameter", "Task"]

_MODULES = (
    linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties,
    passthrough,
)  # fmt: skip

#: by the spelling in recipes
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _MODULES}
assert len(METHODS) == len(_MODULES), "two methods of one name"
