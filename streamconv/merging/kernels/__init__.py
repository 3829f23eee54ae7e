"""Compiled loops of the merge methods; imported when the first tensor is merged, for numba takes a while to load."""

from __future__ import annotations

from types import ModuleType

from ...quant import cache


def load(name: str) -> ModuleType:
    """The kernel module ``name``."""
    return cache.compiled(f"{__name__}.{name}")
