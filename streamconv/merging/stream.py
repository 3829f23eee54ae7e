"""The prepare pass: all rows of all inputs of a tensor, once, in blocks.

A block is a fixed number of rows that depends on the tensor's shape and the number of inputs only. Results come back in the
order of the blocks, so what is made of them is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..rows import Floats
from .inputs import Inputs
from .scratch import borrow

#: floats of all inputs in a block: with keys or differences of the same size they fill a second-level cache
_BLOCK = 64 << 10
_AHEAD = 16

T = TypeVar("T")


class Stream:
    """The rows of the inputs of one tensor.

    Parameters
    ----------
    inputs : where they come from
    threads : how many go through the blocks
    """

    def __init__(self, inputs: Inputs, threads: int = 1) -> None:
        self.inputs = inputs
        self.n_rows, self.n_cols = inputs.n_rows, inputs.n_cols
        self.block_rows = max(1, _BLOCK // max(1, self.n_cols * inputs.count))
        self.n_blocks = -(-self.n_rows // self.block_rows)
        self._threads = max(1, min(threads, self.n_blocks))

    def map(self, look: Callable[[Floats, int], T], blocks: Sequence[int] | None = None) -> list[T]:
        """``look(x, start)`` of every block (or those listed), in order.

        ``x`` is float32[n_inputs, rows, n_cols], the rows from ``start`` on, and may be overwritten.
        """
        wanted = range(self.n_blocks) if blocks is None else blocks

        def keep(kept: list[tuple[int, T]], x: Floats, start: int, at: int) -> None:
            kept.append((at, look(x, start)))

        def new() -> list[tuple[int, T]]:
            return []

        found = self.fold(new, keep, wanted)
        return [value for _, value in sorted((pair for part in found for pair in part), key=lambda pair: pair[0])]

    def fold(
        self, new: Callable[[], T], look: Callable[[T, Floats, int, int], None], blocks: Sequence[int] | None = None
    ) -> list[T]:
        """Call ``look(kept, x, start, n)`` for every block, ``n`` counting them; each thread keeps a ``new()`` of its own.

        Which blocks a thread gets is not fixed: what is kept must not depend on it, once all are put together.
        """
        wanted = range(self.n_blocks) if blocks is None else blocks

        def work(first: int) -> T:
            kept = new()
            for at in range(first, len(wanted), self._threads):
                self._hint(wanted, at)
                start = wanted[at] * self.block_rows
                stop = min(start + self.block_rows, self.n_rows)
                with borrow(self.inputs.count, stop - start, self.n_cols) as x:
                    self.inputs.read(start, stop, x)
                    look(kept, x, start, at)
            return kept

        if self._threads == 1:
            return [work(0)]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, range(self._threads)))

    def _hint(self, wanted: Sequence[int], at: int) -> None:
        """Ask for the blocks that come next, a few at a time."""
        group, inside = divmod(at, _AHEAD * self._threads)
        if inside >= self._threads:
            return
        size = _AHEAD * self._threads
        ahead = wanted[(group + 1) * size : (group + 2) * size]
        if len(ahead) and inside == 0 and ahead[-1] - ahead[0] == len(ahead) - 1:
            rows = ahead[0] * self.block_rows, min((ahead[-1] + 1) * self.block_rows, self.n_rows)
            self.inputs.prefetch(*rows)
