"""Rotary positions: angles, and the rotation of queries and keys.

Source: ``ggml_rope_ext`` and ``llama-context.cpp`` of llama.cpp; YaRN: arXiv 2309.00071.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats


@dataclass(frozen=True)
class Rope:
    """How a layer rotates.

    Attributes
    ----------
    halves : pairs are (i, i + n/2); else (2i, 2i + 1)
    n : numbers of a head that are rotated, its first ones
    base, scale : angles are position * scale * base^(-2i/n)
    yarn : whether fast frequencies keep their angles, as ``beta_fast``, ``beta_slow`` and ``original`` length say
    attention : what cosine and sine are multiplied by
    factors : divide the frequencies; ``long_factors`` those of contexts longer than ``original``
    """

    halves: bool
    n: int
    base: float
    scale: float = 1.0
    yarn: bool = False
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    original: int = 0
    attention: float = 1.0
    factors: str = ""
    long_factors: str = ""

    def tables(self, n_ctx: int, factors: Floats | None) -> tuple[Floats, Floats]:
        """Cosine and sine, float32[n_ctx, n/2] each."""
        rate = self.base ** (-np.arange(0, self.n, 2, dtype=np.float64) / self.n)
        if factors is not None:
            rate = rate / factors.astype(np.float64).reshape(-1)[: len(rate)]
        scaled = rate * self.scale
        if self.yarn:
            kept = self._kept(len(rate))
            scaled = scaled * (1 - kept) + rate * kept
        angle = np.arange(n_ctx, dtype=np.float64)[:, None] * scaled
        return (
            (np.cos(angle) * self.attention).astype(np.float32),
            (np.sin(angle) * self.attention).astype(np.float32),
        )

    def _kept(self, n: int) -> NDArray[np.float64]:
        """How much of its own angle each frequency keeps, 1 to 0."""

        def place(turns: float) -> float:
            return self.n * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(self.base))

        low = max(0.0, math.floor(place(self.beta_fast)))
        high = min(self.n - 1.0, math.ceil(place(self.beta_slow)))
        kept: NDArray[np.float64] = 1 - np.clip((np.arange(n) - low) / max(0.001, high - low), 0, 1)
        return kept


#: positions that are rotated at once: they stay in the cache
_AT_ONCE = 32


def rotate_(x: Floats, cos: Floats, sin: Floats, rope: Rope) -> None:
    """Rotate the first ``rope.n`` numbers of every head of ``x`` float32[chunks, n_ctx, heads, size] in place."""
    half = rope.n // 2
    for chunk in x:
        for start in range(0, len(chunk), _AT_ONCE):
            part, at = chunk[start : start + _AT_ONCE], slice(start, start + _AT_ONCE)
            first, second = (
                (slice(half), slice(half, rope.n)) if rope.halves else (slice(0, rope.n, 2), slice(1, rope.n, 2))
            )
            a, b, c, s = part[..., first], part[..., second], cos[at, None], sin[at, None]
            turned = a * c - b * s
            b *= c
            b += a * s
            a[...] = turned
