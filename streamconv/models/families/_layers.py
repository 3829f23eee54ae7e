"""Layers that look at a window only among layers that look at the whole context."""

from __future__ import annotations

from ...metadata import Metadata
from ..config import Config
from ..keys import Key

_FULL = "full_attention"


def kinds(c: Config, every: int, last: str = "") -> list[str]:
    """The kind of each layer; where config.json does not say, every ``every``-th is full, and the last one is ``last``."""
    stated = c.get("layer_types")
    if isinstance(stated, list):
        return stated[: c.n_layers]
    found = ["sliding_attention" if (n + 1) % every else _FULL for n in range(c.n_layers)]
    return [*found[:-1], last] if last else found


def window_pattern(every: int, last: str = "") -> Key:
    """Which layers have a window."""

    def key(m: Metadata, a: str, c: Config) -> None:
        windows = [kind == "sliding_attention" for kind in kinds(c, every, last)]
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", windows)

    return key
