"""What the ranges of a job depend on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from streamconv.conversion import open_runnable
from streamconv.evaluation.groups import Group, beside, rows_of
from streamconv.rows import Rows, Span

NAMES = [
    "token_embd.weight", "token_embd_norm.weight", "position_embd.weight", "per_layer_token_embd.weight", "blk.0.attn_q.weight",
    "blk.1.attn_q.weight", "output_norm.weight", "output.weight",
]  # fmt: skip
TOKENS = np.int32([[7, 3, 3], [4, 0, 8]])


class Table(Rows):
    """Nine rows of a byte, in a file of its own name."""

    def __init__(self, name: str) -> None:
        self.name, self.shape, self.dtype = name, (9, 1), "U8"

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        yield Span(self.name, start, stop - start)  # type: ignore[arg-type]


def model(*without: str, head: str = "output.weight") -> Any:
    return SimpleNamespace(rows={name: Table(name) for name in NAMES if name not in without}, head=head)


def read(rows: list[Rows]) -> dict[str, list[tuple[int, int]]]:
    """What ranges of which tensors are read."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, start, length in Group(0, "a", 0, (), 0, 1, rows).spans(0, 1):
        found.setdefault(str(name), []).append((start, start + length))
    return found


def test_what_blocks_look_at_beside_states_belongs_to_the_first() -> None:
    looked_up = [(0, 1), (3, 5), (7, 9)]
    assert read(rows_of(model(), 0, TOKENS)) == {"blk.0.attn_q.weight": [(0, 9)], "token_embd.weight": looked_up}
    rest = {"token_embd_norm.weight": [(0, 9)], "position_embd.weight": [(0, 9)]}
    assert read(beside(model(), 0, TOKENS)) == {**rest, "per_layer_token_embd.weight": looked_up}
    assert read(rows_of(model(), 1, TOKENS)) == {"blk.1.attn_q.weight": [(0, 9)]}
    assert beside(model(), 1, TOKENS) == []


def test_a_head_depends_on_the_table_of_embeddings_where_it_is_its_matrix() -> None:
    norms = {"token_embd_norm.weight", "position_embd.weight", "output_norm.weight"}
    assert set(read(rows_of(model(), None, TOKENS))) == {*norms, "output.weight"}
    tied = model("output.weight", head="token_embd.weight")
    assert set(read(rows_of(tied, None, TOKENS))) == {*norms, "token_embd.weight"}


def test_which_rows_of_a_table_are_looked_up_decides_no_identity() -> None:
    first, other = (Group(0, "a", 0, (), 0, 1, rows_of(model(), 0, tokens)) for tokens in (TOKENS, TOKENS[:1]))
    assert first.identity() == other.identity()


def test_what_is_beside_is_read_with_the_rest_and_decides_no_identity(data: Path) -> None:
    small, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    first, other = rows_of(small, 1, TOKENS), rows_of(small, 0, TOKENS)[:-1]
    alone, both = Group(0, "a", 0, (), 0, 1, first), Group(0, "a", 0, (), 0, 1, first, other)
    assert both.identity() == alone.identity()
    assert [*both.spans(0, 1)] == [*alone.spans(0, 1), *Group(0, "b", 1, (), 0, 1, other).spans(0, 1)]
    assert sum(span.length for span in both.everything()) == 2 * int(
        sum(np.prod(rows.shape) for rows in (*first, *other))
    )
