"""The two factors of a low-rank change, after the rules of a family have gone over it as if it were a matrix.

A change ``B A`` goes through the rules as rows of its own (``low_rank``). What they put around it picks, stacks or turns rows, all
of which is done to one factor alone, or to both; ``factors`` reads it back from the kit's rows and does that.
"""

from __future__ import annotations

from math import prod

from ..errors import BadInput
from ..kit import Columns, Mapped, Reshaped, Selected, Stacked, Transposed, Zeros, join, take
from ..merging.lora_rows import Kept, LoraRows, LowRank
from ..rows import Rows


class NotFactored(BadInput):
    """Rows that are not a product of two factors any more."""


def low_rank(a: Rows, b: Rows, transposed: bool) -> Rows:
    """The matrix ``b a`` [n_out, n_in] of factors [rank, n_in] and [n_out, rank]; ``transposed``: [n_in, n_out]."""
    dtype = a.dtype if a.dtype == b.dtype else "F32"
    shape = (b.shape[0], a.shape[1])
    return LoraRows(
        Zeros(shape[::-1] if transposed else shape, dtype), LowRank("change", a, b, 1.0, transposed, Kept())
    )


def factors(rows: Rows) -> tuple[Rows, Rows]:
    """``(a, b)`` of what was made of ``low_rank`` changes: [rank, n_cols] and [n_rows, rank], experts before these.

    Raises
    ------
    NotFactored : something else was done to it than can be done to factors
    """
    if isinstance(rows, LoraRows):
        a, b = rows.update.a, rows.update.b
        return (turned(b), turned(a)) if rows.update.transposed else (a, b)
    if isinstance(rows, Transposed):
        a, b = factors(rows.inner)
        return turned(b), turned(a)
    if isinstance(rows, Columns):
        a, b = factors(rows.inner)
        return take(a, rows.order, -1), b
    if isinstance(rows, Selected):
        return _selected(rows)
    if isinstance(rows, Reshaped):
        a, b = factors(rows.inner)
        if rows.shape[-1] == a.shape[-1] and len(a.shape) == 2:
            return a, Reshaped(b, (*rows.shape[:-1], b.shape[-1]))
    if isinstance(rows, Stacked):
        return _stacked(rows)
    if isinstance(rows, Mapped) and rows.function.name.startswith("times "):
        a, b = factors(rows.inner)
        return a, Mapped(b, rows.function)
    raise NotFactored(f"{type(rows).__name__} is made of the matrix, which cannot be made of its factors")


def turned(rows: Rows) -> Rows:
    """``rows`` transposed; those that are transposed already as they were."""
    return rows.inner if isinstance(rows, Transposed) else Transposed(rows)


def _selected(rows: Selected) -> tuple[Rows, Rows]:
    a, b = factors(rows.inner)
    # of a stack the same rows of every matrix
    of_each = (rows.order.sizes[0], rows.order.steps[0]) == (prod(a.shape[:-2]), b.shape[-2])
    if len(a.shape) > 2 and not (of_each and rows.shape[:-2] == a.shape[:-2]):
        raise NotFactored("some rows of some matrices of a stack are taken")
    return a, Selected(b, rows.order, (*rows.shape[:-1], b.shape[-1]))


def _stacked(rows: Stacked) -> tuple[Rows, Rows]:
    pairs = [factors(part) for part in rows.parts]
    if len({a.shape[-2] for a, _ in pairs}) > 1:
        ranks = ", ".join(str(a.shape[-2]) for a, _ in pairs)
        raise NotFactored(f"the parts of one tensor have factors of different ranks: {ranks}")
    if len(rows.shape) > len(rows.parts[0].shape):
        return Stacked([a for a, _ in pairs]), Stacked([b for _, b in pairs])
    if len(rows.shape) == 2:
        if any(a is not pairs[0][0] for a, _ in pairs):
            raise NotFactored("matrices that have factors of their own are joined")
        return pairs[0][0], join([b for _, b in pairs])
    return join([a for a, _ in pairs]), join([b for _, b in pairs])
