"""Sizes: the unit they are counted in, and how people are told."""

from __future__ import annotations

MIB = 1 << 20


def size(n: float) -> str:
    """``n`` bytes for people, in powers of 1024.

    >>> size(512), size(1023), size(3 * MIB), size(5.5 * 1024 * MIB)
    ('512 B', '1023 B', '3.0 MiB', '5.5 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} TiB"
