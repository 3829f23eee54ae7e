"""A grid of vectors of another size, between whose points it is interpolated."""

from __future__ import annotations

import numpy as np

from ..rows import Floats, Rows


class Resampled(Rows):
    """The vectors [1, side x side, width] of a square grid as those of another, whose corners are the same.

    Bilinear, in the arithmetic of torch's ``interpolate(..., align_corners=True)`` on channels that lie together: places and
    weights in float32, the four products added from the left.

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
            corners = (
                (before[y], before[x], h0 * w0), (before[y], behind[x], h0 * w), (behind[y], before[x], h * w0),
                (behind[y], behind[x], h * w),
            )  # fmt: skip
            total = out[n - start]
            total[...] = 0
            for row, column, factor in corners:
                at = row * self.own + column
                total += factor * self.inner.read(at, at + 1)[0]

