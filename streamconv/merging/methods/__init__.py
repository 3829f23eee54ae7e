"""The merge methods by name, one file each."""

from __future__ import annotations

from . import (
    arcee_fusion,
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    karcher,
    linear,
    model_stock,
    multislerp,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    ramplus_tl,
    sce,
    slerp,
    task_arithmetic,
    ties,
)
from .base import Method, Operator, Parameter, Task

__all__ = ["METHODS", "Method", "Operator", "Parameter", "Task"]

_MODULES = (
    linear, slerp, nuslerp, multislerp, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs,
    breadcrumbs_ties, model_stock, sce, karcher, arcee_fusion, nearswap, ram, ramplus_tl, passthrough,
)  # fmt: skip

#: by the spelling in recipes
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _MODULES}
assert len(METHODS) == len(_MODULES), "two methods of one name"
