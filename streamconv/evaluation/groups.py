"""The ranges of a job's file, such as an importance matrix: what one block of a model gives, or what is of none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..forward import Model
from ..quant.imatrix_files import Shape
from ..rows import Bytes, File, Floats, Json, Quality, Rows, Span, matrix_shape
from ..targets.imatrix import ImatrixLayout

_BLOCK = re.compile(r"blk\.(\d+)\.")


def block_of(name: str) -> int | None:
    """Number of the block that a tensor is of."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


def rows_of(model: Model, block: int | None) -> list[Rows]:
    """What the inputs of a block's matrices depend on besides the blocks before it; of what is in no block: the whole head."""
    if block is not None:
        names = [name for name in model.rows if block_of(name) == block or (block == 0 and name == "token_embd.weight")]
    else:
        names = [name for name in model.rows if block_of(name) is None]
    return [model.rows[name] for name in names]


def beside(model: Model, block: int | None) -> list[Rows]:
    """What all blocks may look at, such as embeddings of positions: that it has changed is to be seen at the first."""
    names = [name for name in model.rows if block_of(name) is None and not name.startswith(("output", "token_embd.w"))]
    return [model.rows[name] for name in names] if block == 0 else []


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
    make: Callable[[Group], bytes] | None = None,
) -> list[Group]:
    """The entries of a file as it is laid out, by block, in its order; what lies behind the last belongs to it.

    Parameters
    ----------
    model : is run for the values; None: ``make`` knows them
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
        rows, others = (rows_of(model, block), beside(model, block)) if model is not None else ([], [])
        made.append(Group(n, name, block, entries, start, end - start, rows, others, make))
    return made
