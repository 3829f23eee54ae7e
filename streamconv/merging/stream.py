"""The look at a whole tensor: all rows of all inputs of a tensor, once, in blocks.

A block is a fixed number of rows that depends on the tensor's shape and the number of inputs only: what is added up over a
block, and then block by block, is the same for any number of threads. A tile, one or several blocks, is what is read at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from ..workers import Workers
from .inputs import Inputs, Numbers

#: floats of all inputs in a block: with keys or differences of the same size they fill a second-level cache
_BLOCK = 64 << 10
#: the same of a tile of bfloat16, which needs half the room and whose differences are never stored
_WORDS = 256 << 10
_AHEAD = 16

T = TypeVar("T")


class Stream:
    """The rows of the inputs of one tensor.

    Parameters
    ----------
    inputs : where they come from
    workers : who goes through the tiles
    words : tiles hold bfloat16 as it is stored; otherwise float32

    Attributes
    ----------
    block_rows : rows of a block
    tile_rows : rows of a tile
    """

    def __init__(self, inputs: Inputs, workers: Workers, words: bool = False) -> None:
        self.inputs = inputs
        self.n_rows, self.n_cols = inputs.n_rows, inputs.n_cols
        row = max(1, self.n_cols * inputs.count)
        self.block_rows = max(1, _BLOCK // row)
        self.tile_rows = self.block_rows * max(1, _WORDS // (row * self.block_rows)) if words else self.block_rows
        self.n_tiles = -(-self.n_rows // self.tile_rows)
        self._workers = workers
        self._words = words

    def map(self, look: Callable[[Numbers, int], T], tiles: Sequence[int] | None = None) -> list[T]:
        """``look(x, start)`` of every tile (or those listed), in order.

        ``x`` are the rows from ``start`` on, [n_inputs, rows, n_cols]: float32, which may be overwritten, or bfloat16 as uint16.
        """
        wanted = range(self.n_tiles) if tiles is None else tiles
        return self._workers.map(lambda at: self._look(look, wanted, at), range(len(wanted)))

    def add_up(self, look: Callable[[Any, int], Iterable[NDArray[Any]]], total: NDArray[Any]) -> None:
        """Add the arrays of ``look(x, start)`` to ``total``, tile after tile: they are held only while an earlier tile is made."""
        tiles = range(self.n_tiles)
        self._workers.add_up(lambda at: self._look(look, tiles, at), tiles, total)

    def fold(self, new: Callable[[], T], look: Callable[[T, Numbers, int, int], None]) -> list[T]:
        """Call ``look(kept, x, start, n)`` for every tile ``n``; see ``Workers.fold``."""
        tiles = range(self.n_tiles)
        return self._workers.fold(
            new, lambda kept, at: self._look(lambda x, start: look(kept, x, start, at), tiles, at), self.n_tiles
        )

    def _look(self, look: Callable[[Numbers, int], T], wanted: Sequence[int], at: int) -> T:
        """``look(x, start)`` of the tile number ``at`` of those that are ``wanted``."""
        self._hint(wanted, at)
        start = wanted[at] * self.tile_rows
        with self.rows(start, min(start + self.tile_rows, self.n_rows)) as x:
            return look(x, start)

    def rows(self, start: int, stop: int) -> Any:
        """The rows ``start..stop`` of all inputs as ``map`` gives them; for a ``with`` block."""
        return self.inputs.tile(start, stop, self._words)

    def _hint(self, wanted: Sequence[int], at: int) -> None:
        """Ask for the tiles that come next, a few at a time."""
        group, inside = divmod(at, _AHEAD)
        ahead = wanted[(group + 1) * _AHEAD : (group + 2) * _AHEAD] if inside == 0 else ()
        if len(ahead) and ahead[-1] - ahead[0] == len(ahead) - 1:
            for source in self.inputs.rows:
                source.prefetch(ahead[0] * self.tile_rows, min((ahead[-1] + 1) * self.tile_rows, self.n_rows))
