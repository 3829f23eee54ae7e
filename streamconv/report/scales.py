"""Axes: where values lie, and round numbers to mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .numbers import number, power


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``.

    Attributes
    ----------
    is_log : whether equal steps are equal ratios
    ticks : the values that are marked, rising
    label : what is written at them
    """

    low: float
    high: float
    ticks: Sequence[float]
    is_log: bool = False
    label: Callable[[float], str] = number

    def at(self, value: float) -> float:
        """Where ``value`` lies, from 0 to 1; what lies outside is moved to the end."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.is_log else (self.low, self.high)
        x = (math.log10(value) if value > 0 else low) if self.is_log else value
        return min(1.0, max(0.0, (x - low) / (high - low)))


def linear(low: float, high: float, n_ticks: int = 5, label: Callable[[float], str] = number) -> Scale:
    """From a round number at or below ``low`` to one at or above ``high``.

    >>> linear(0, 8.5).ticks, linear(0.021, 0.049).ticks
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.02, 0.03, 0.04, 0.05])
    """
    if not high > low:
        low, high = min(low, 0.0), high if high > min(low, 0.0) else low + 1
    step = _step((high - low) / n_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [_clean(k * step) for k in range(first, last + 1)]
    return Scale(ticks[0], ticks[-1], ticks, label=label)


def within(low: float, high: float, n_ticks: int = 5, label: Callable[[float], str] = number) -> Scale:
    """Exactly from ``low`` to ``high``, with the round numbers between them, whole ones.

    >>> within(-0.5, 25.5, 6).ticks
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    """
    step = max(1.0, _step((high - low) / n_ticks))
    return Scale(low, high, [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)], label=label)


def in_units(low: float, high: float, unit: float, n_ticks: int = 5) -> Scale:
    """As ``linear``, for values with ticks that are round in multiples of ``unit``.

    >>> in_units(0, 240, 60).ticks, in_units(0, 240, 60).label(120)
    ([0.0, 60.0, 120.0, 180.0, 240.0], '2')
    """
    inner = linear(low / unit, high / unit, n_ticks)
    ticks = [t * unit for t in inner.ticks]
    return Scale(ticks[0], ticks[-1], ticks, label=lambda value: number(value / unit))


def logarithmic(low: float, high: float, label: Callable[[float], str] | None = None) -> Scale:
    """From a round number at or below ``low`` to one at or above ``high``, both above 0; powers of ten are marked,
    and where there is one at most, 2 and 5 times it too.

    >>> logarithmic(3e-4, 0.2).ticks, logarithmic(0.021, 0.049).ticks
    ([0.0001, 0.001, 0.01, 0.1, 1.0], [0.02, 0.05])
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = [float(f"{m}e{k}") for k in powers for m in (1, 2, 5)]
    below = max(i for i, s in enumerate(steps) if s <= low * (1 + 1e-9))
    above = min(i for i, s in enumerate(steps) if s >= high * (1 - 1e-9) and i > below)
    if above - below <= 3:
        return Scale(steps[below], steps[above], steps[below : above + 1], True, label or number)
    below, above = below - below % 3, above + -above % 3
    ticks = steps[below : above + 1 : 3]
    every = -(-len(ticks) // 7)
    return Scale(steps[below], steps[above], ticks[::every], True, label or power)


def fitting(values: Sequence[float], label: Callable[[float], str] | None = None) -> Scale:
    """For ``values`` of at least 0: linear from 0, or logarithmic where they differ by large ratios."""
    positive = [v for v in values if v > 0]
    if positive and max(positive) > _WIDE * min(positive):
        return logarithmic(min(positive), max(positive), label)
    return linear(0, max(positive, default=1.0), 4, label or number)


#: values that differ by more cannot be told apart on a linear axis
_WIDE = 20.0


def _step(least: float) -> float:
    """The round step of at least so much: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _clean(x: float) -> float:
    """Without what adding steps up left behind."""
    return float(f"{x:.10g}")
