"""A grid of vectors of another size, between whose points it is interpolated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..rows import Floats, Rows, Span
from .exponential import fused


class Resampled(Rows):
    """The vectors [1, side x side, width] of a square grid as those of another, whose corners are the same.

    Bilinear, in the arithmetic of torch's ``interpolate(..., align_corners=True)`` on vectors of a multiple of 16 numbers: places
    and weights in float32, of the four products all but the first added without being rounded before.

    Parameters
    ----------
    inner : float32[1, ``own`` ** 2, width]
    own, side : points of a side before and after
    """

    def __init__(self, inner: Rows, own: int, side: int) -> None:
        self.inner = inner
        self.own = own
        self.side = side
        self.shape = (1, side * side, inner.shape[-1])
        self.dtype = "F32"

    def _places(self) -> tuple[list[int], list[int], Floats]:
        """For each point of a side: the one before it in the inner, the one behind it, and the weight of the latter."""
        ratio = np.float32(self.own - 1) / np.float32(self.side - 1) if self.side > 1 else np.float32(0)
        real = ratio * np.arange(self.side, dtype=np.float32)
        before = np.minimum(real.astype(np.int64), self.own - 1)
        behind = before + (before < self.own - 1)
        weight = np.minimum(np.maximum(real - before.astype(np.float32), np.float32(0)), np.float32(1))
        return before.tolist(), behind.tolist(), weight

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        before, behind, weight = self._places()
        for n in range(start, stop):
            y, x = divmod(n, self.side)
            h, w = weight[y], weight[x]
            h0, w0 = np.float32(1) - h, np.float32(1) - w
            above, below = before[y] * self.own, behind[y] * self.own
            left, right = before[x], behind[x]
            total = (h * w0) * self._point(below + left)
            for at, factor in ((below + right, h * w), (above + right, h0 * w), (above + left, h0 * w0)):
                total = fused(self._point(at), factor, total)
            out[n - start] = total

    def _point(self, at: int) -> Floats:
        found: Floats = self.inner.read(at, at + 1)[0]
        return found

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """All lines of the inner grid between those of the first and the last point."""
        if start < stop:
            before, behind, _ = self._places()
            first, last = before[start // self.side], behind[(stop - 1) // self.side]
            yield from self.inner.spans(first * self.own, (last + 1) * self.own)
