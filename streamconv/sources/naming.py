"""How names from files are shown: they are opaque text and may hold anything, so messages never carry them raw."""

from __future__ import annotations

from collections.abc import Collection


def shown(name: str, limit: int = 80) -> str:
    """``name`` quoted, control characters escaped, cut in the middle when longer than ``limit``.

    >>> shown("model.norm.weight"), shown("a\\0b"), shown("x" * 5000, 20)
    ("'model.norm.weight'", "'a\\\\x00b'", "'xxxxxxxxxx…xxxxx' (5000 characters)")
    """
    if len(name) <= limit:
        return repr(name)
    head, tail = limit // 2, limit // 4
    return f"{f'{name[:head]}…{name[-tail:]}'!r} ({len(name)} characters)"


def shown_list(names: Collection[str], limit: int = 3) -> str:
    """The first ``limit`` names in order, and how many more there are.

    >>> shown_list(["b", "a", "c", "d"], 2)
    "'a', 'b' and 2 more"
    """
    first = ", ".join(shown(name) for name in sorted(names)[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"
