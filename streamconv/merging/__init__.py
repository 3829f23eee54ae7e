"""Merge recipes: models in, one model out, row by row.

A merge is a ``Checkpoint`` whose tensors are row sources over the rows of other checkpoints, so everything that converts a
checkpoint converts a merge, and nothing is stored in between.
"""

from __future__ import annotations

from .opening import open_recipe

__all__ = ["open_recipe"]
