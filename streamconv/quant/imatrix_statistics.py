"""What llama-imatrix prints of an importance matrix with ``--show-statistics``.

Per entry, over the mean squared activations of its columns: sum, least, largest, mean, standard deviation, share above 1e-5,
entropy in bits and relative to the largest possible, share more than a standard deviation above the mean (ZD), and the cosine
between its sums and those of the block before. Per block, their means weighted by the number of columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..rows import Floats
from .imatrix_sums import Counts, Sums

_BLOCK = re.compile(r"blk\.(\d+)\.")
_INACTIVE = 1e-5


class Statistics(NamedTuple):
    """Of one entry; shares are of 1.

    Attributes
    ----------
    block : number of the block, None outside of them
    tensor : name without block and ``.weight``
    """

    name: str
    block: int | None
    tensor: str
    n: int
    total: float
    least: float
    largest: float
    mean: float
    deviation: float
    active: float
    entropy: float
    entropy_share: float
    zd: float
    cosine: float


def statistics(entries: Sums) -> list[Statistics]:
    """Of all ``entries`` that were reached, by tensor and then the largest sum first."""
    found = [
        _of(name, entries.sums(name), counts, _before(name, entries))
        for name, counts in entries.counts.items()
        if counts.any()
    ]
    return sorted(found, key=lambda s: (s.tensor, -s.total))


def _of(name: str, sums: Floats, counts: Counts, before: Floats | None) -> Statistics:
    reached = counts > 0
    values = (sums[reached] / counts[reached, None]).astype(np.float64).ravel()
    n, whole, mean = values.size, float(values.sum()), float(values.mean())
    deviation = float(np.sqrt(max(0.0, float((values * values).mean()) - mean * mean)))
    shares = values[values > 0] / whole if whole > 0 else values[:0]
    entropy = float(-(shares * np.log2(shares)).sum())
    zd = float(((values - mean) > deviation).mean()) if deviation > 0 else 0.0
    match = _BLOCK.search(name)
    parts = name.split(".")
    tensor = parts[parts.index("weight") - 1] if "weight" in parts[1:] else name
    return Statistics(
        name, int(match[1]) if match else None, tensor, n, whole, float(values.min()), float(values.max()), mean, deviation,
        float((values > _INACTIVE).mean()), entropy, entropy / float(np.log2(n)) if n > 1 else 0.0, zd,
        _cosine(sums, before),
    )  # fmt: skip


def _before(name: str, entries: Sums) -> Floats | None:
    """The sums of the same tensor in the block before."""
    other = _BLOCK.sub(lambda m: f"blk.{int(m[1]) - 1}.", name, count=1)
    return entries.sums(other) if other != name and other in entries.shapes else None


def _cosine(a: Floats, b: Floats | None) -> float:
    if b is None or a.size != b.size:
        return 0.0
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    lengths = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / lengths if lengths else 0.0


class BlockStatistics(NamedTuple):
    """Means over the entries of a block, weighted by their columns."""

    block: int
    total: float
    zd: float
    cosine: float


def by_block(found: list[Statistics]) -> list[BlockStatistics]:
    """Of every block, in order."""
    result = []
    for block in sorted({s.block for s in found if s.block is not None}):
        own = [s for s in found if s.block == block]
        weights = np.array([s.n for s in own], np.float64)
        means = [float(weights @ [getattr(s, key) for s in own] / weights.sum()) for key in ("total", "zd", "cosine")]
        result.append(BlockStatistics(block, *means))
    return result


def lines(name: str, found: list[Statistics]) -> Iterator[str]:
    """The two tables for people; ``name`` is what they are of."""
    yield f"Statistics of {name} ({len(found)} tensors)"
    heads = (
        "Layer",
        "Tensor",
        "Σ(Act²)",
        "Min",
        "Max",
        "μ",
        "σ",
        "% Active",
        "N",
        "Entropy",
        "E (norm)",
        "ZD",
        "CosSim",
    )
    widths = (5, -20, 12, 10, 12, 9, 9, 9, 8, 10, 9, 8, 8)
    yield _row(heads, widths)
    for s in found:
        layer = "-" if s.block is None else str(s.block)
        numbers = (
            layer, s.tensor, f"{s.total:.2f}", f"{s.least:.4f}", f"{s.largest:.4f}", f"{s.mean:.2f}", f"{s.deviation:.2f}",
            f"{100 * s.active:.2f}%", str(s.n), f"{s.entropy:.4f}", f"{100 * s.entropy_share:.2f}%", f"{100 * s.zd:.2f}%",
            f"{s.cosine:.4f}",
        )  # fmt: skip
        yield _row(numbers, widths)
    blocks = by_block(found)
    yield f"Weighted averages per layer ({len(blocks)} layers)"
    yield _row(("Layer", "μΣ(Act²)", "μZD", "μCosSim"), (5, 14, 10, 9))
    for b in blocks:
        yield _row((str(b.block), f"{b.total:.2f}", f"{100 * b.zd:.4f}%", f"{b.cosine:.4f}"), (5, 14, 10, 9))


def _row(texts: tuple[str, ...], widths: tuple[int, ...]) -> str:
    return " ".join(f"{t:<{-w}}" if w < 0 else f"{t:>{w}}" for t, w in zip(texts, widths, strict=True)).rstrip()


def as_json(found: list[Statistics]) -> dict[str, Any]:
    """The same, JSON-able."""
    return {"tensors": [s._asdict() for s in found], "layers": [b._asdict() for b in by_block(found)]}
