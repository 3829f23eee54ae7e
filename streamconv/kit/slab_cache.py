"""What a thread keeps of rows that can only be made many at a time, from call to call and in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

#: bytes of rows to make at a time
SLAB_BYTES = 8 << 20
_KEPT = 2


class Held(Protocol):
    """Some rows."""

    @property
    def start(self) -> int:
        """The first."""

    @property
    def stop(self) -> int:
        """One past the last."""


S = TypeVar("S", bound=Held)


class _SlabCache(threading.local):
    def __init__(self) -> None:
        self.slabs: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()


_cache = _SlabCache()


def slab(owner: Any, make: Callable[[], S], start: int, stop: int, kind: str = "") -> S:
    """The slab of ``owner`` that holds rows ``start..stop``, kept from call to call in this thread, else a new one.

    Parameters
    ----------
    kind : tells the slabs of one owner apart
    """
    key = id(owner), kind
    held = _cache.slabs.get(key)
    if held is not None and held[0] is owner and held[1].start <= start and stop <= held[1].stop:
        _cache.slabs.move_to_end(key)
        found: S = held[1]
        return found
    _cache.slabs.pop(key, None)
    while len(_cache.slabs) >= _KEPT:
        _cache.slabs.popitem(last=False)
    made = make()
    _cache.slabs[key] = (owner, made)
    return made
