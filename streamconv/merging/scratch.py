"""Working memory of a thread, kept from call to call.

Fresh memory of this size comes from the system page by page, which costs more than the arithmetic done in it.
Blocks are lent in stack order: what a merge borrows while its inputs, merges themselves, borrow too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from ..rows import Floats


class _Pool(threading.local):
    def __init__(self) -> None:
        self.free: list[Floats] = []


_pool = _Pool()


@contextmanager
def borrow(*shape: int) -> Iterator[Floats]:
    """float32 of ``shape`` in C order, with any content; released at the end of the ``with`` block."""
    size = prod(shape)
    block = _pool.free.pop() if _pool.free else None
    if block is None or block.size < size:
        block = np.empty(size, np.float32)
    try:
        yield block[:size].reshape(shape)
    finally:
        _pool.free.append(block)
