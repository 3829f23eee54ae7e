"""Combinations of parameters: a few for the quick suite, all for the slow one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def combined(*axes: Iterable[Any]) -> list[Any]:
    """All combinations of a value of each of ``axes``; slow but for as few as show every value at least once."""
    values = [list(axis) for axis in axes]
    quick = {tuple(n % len(axis) for axis in values) for n in range(max(map(len, values)))}
    return [
        pytest.param(
            *(axis[n] for axis, n in zip(values, at, strict=True)), marks=() if at in quick else pytest.mark.slow
        )
        for at in product(*(range(len(axis)) for axis in values))
    ]
