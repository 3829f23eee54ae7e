"""The ranges of a job's file, such as an importance matrix: what one block of a model gives, or what is of none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..forward import Model
from ..forward.chunks import Tokens
from ..quant.imatrix_files import Shape
from ..rows import Bytes, File, Floats, Json, Quality, Rows, Span, matrix_shape
from ..targets.imatrix import ImatrixLayout

_BLOCK = re.compile(r"blk\.(\d+)\.")
#: of these, blocks see the rows of their tokens
_TABLES = {"token_embd.weight", "per_layer_token_embd.weight"}


def block_of(name: str) -> int | None:
    """Number of the block that a tensor is of."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


class Looked(Rows):
    """Those rows of a table that are looked up; which they are is known from elsewhere, so it decides nothing here.

    Parameters
    ----------
    numbers : of the rows, in ascending order
    """

    def __init__(self, inner: Rows, numbers: NDArray[np.int64]) -> None:
        self.inner, self._taken = inner, numbers
        self.shape = (len(numbers), matrix_shape(inner.shape)[1])
        self.dtype = inner.dtype

    def identity(self) -> Json:
        """That of the table."""
        return self.inner.identity()

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        numbers = self._taken[start:stop]
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            if len(run):
                yield from self.inner.spans(int(run[0]), int(run[-1]) + 1)


def rows_of(model: Model, block: int | None, tokens: Tokens) -> list[Rows]:
    """What the inputs of a block's matrices depend on besides the blocks before it; of what is in no block: the whole head."""
    if block is None:
        return [
            rows for name, rows in model.rows.items() if block_of(name) is None and name not in _TABLES - {model.head}
        ]
    own = [rows for name, rows in model.rows.items() if block_of(name) == block]
    return [*own, *_looked_up(model, "token_embd.weight", tokens)] if block == 0 else own


def beside(model: Model, block: int | None, tokens: Tokens) -> list[Rows]:
    """What all blocks may look at, such as embeddings of positions: that it has changed is to be seen at the first."""
    if block != 0:
        return []
    rest = [
        name for name in model.rows if block_of(name) is None and not name.startswith("output") and name not in _TABLES
    ]
    return [*(model.rows[name] for name in rest), *_looked_up(model, "per_layer_token_embd.weight", tokens)]


def _looked_up(model: Model, name: str, tokens: Tokens) -> list[Rows]:
    """The rows of a table that ``tokens`` have."""
    return [Looked(model.rows[name], np.unique(tokens).astype(np.int64))] if name in model.rows else []


@dataclass(frozen=True, eq=False)
class Group:
    """What is made and committed together, such as entries that lie side by side: an ``engine.plan.Item`` of one row.

    Attributes
    ----------
    block : of the model; None for what is of none
    entries : of an importance matrix, in the order of the file
    offset, n_bytes : where they lie
    rows : tensors that the values depend on
    beside : further ones, which something else identifies
    make : gives all bytes, where they are known without running the model
    """

    number: int
    name: str
    block: int | None
    entries: Sequence[Shape]
    offset: int
    n_bytes: int
    rows: Sequence[Rows] = ()
    beside: Sequence[Rows] = ()
    make: Callable[[Group], bytes] | None = None

    n_rows = 1
    n_cols = 1
    looks: Sequence[Rows] = ()
    whole = False
    together = 0
    is_quick = False

    @property
    def row_bytes(self) -> Sequence[int]:
        """Of its only row."""
        return (self.n_bytes,)

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> Sequence[Quality]:
        """See ``engine.plan.Item``."""
        (out,) = outs
        assert self.make is not None, self.name
        assert out is not None
        out[0] = np.frombuffer(self.make(self), np.uint8)
        return [Quality()]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """All that the block is made of; what it is given depends on the blocks before it, too."""
        for rows in (*self.rows, *self.beside):
            yield from rows.spans(0, matrix_shape(rows.shape)[0])

    def everything(self) -> Iterator[Span]:
        """As ``spans``."""
        return self.spans(0, 1)

    @property
    def files(self) -> list[File]:
        """See ``engine.plan.Item``."""
        return [file for rows in self.rows for file in rows.files]

    def identity(self) -> Json:
        """The tensors."""
        return [rows.identity() for rows in self.rows]

    def prefetch(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        for rows in self.rows:
            rows.prefetch(0, matrix_shape(rows.shape)[0])

    def release(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        for rows in self.rows:
            rows.release(0, matrix_shape(rows.shape)[0])


def grouped(
    shapes: Iterable[Shape],
    layout: ImatrixLayout,
    model: Model | None = None,
    tokens: Tokens | None = None,
    make: Callable[[Group], bytes] | None = None,
) -> list[Group]:
    """The entries of a file as it is laid out, by block, in its order; what lies behind the last belongs to it.

    Parameters
    ----------
    model, tokens : what is run for the values; None: ``make`` knows them
    """
    found: dict[str, list[Shape]] = {}
    by_name = {shape.name: shape for shape in shapes}
    for name in layout.places:
        block = block_of(name)
        found.setdefault(name if block is None else f"blk.{block}", []).append(by_name[name])
    starts = [layout.places[entries[0].name][0] for entries in found.values()]
    ends = [*starts[1:], layout.size]
    made = []
    for n, ((name, entries), start, end) in enumerate(zip(found.items(), starts, ends, strict=True)):
        block = block_of(entries[0].name)
        rows, others = list[Rows](), list[Rows]()
        if model is not None and tokens is not None:
            rows, others = rows_of(model, block, tokens), beside(model, block, tokens)
        made.append(Group(n, name, block, entries, start, end - start, rows, others, make))
    return made
