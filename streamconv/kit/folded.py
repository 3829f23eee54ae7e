"""Norms over batches as the scale and the offset that they come down to once training is over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rows import Floats, Rows
from .root import root

#: what all networks that are saved so have
_EPSILON = np.float32(1e-5)


class FoldedNorm(Rows):
    """Scale or offset of a norm, as float32.

    Parameters
    ----------
    parts : weight, bias, mean and variance, all of one shape
    is_offset : the offset, not the scale
    """

    def __init__(self, parts: Sequence[Rows], is_offset: bool) -> None:
        self.parts = list(parts)
        self.is_offset = is_offset
        self.shape = parts[0].shape
        self.dtype = "F32"
        if any(part.shape != self.shape for part in parts):
            raise ValueError(f"a norm's parts have shapes {[list(part.shape) for part in parts]}")

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32; not a number where the variance is below 0."""
        weight, bias, mean, variance = self.parts
        made = weight.read(start, stop, out)
        with np.errstate(invalid="ignore", divide="ignore"):
            made /= root(variance.read(start, stop) + _EPSILON)
        if self.is_offset:
            made[...] = bias.read(start, stop) - mean.read(start, stop) * made
        return made
