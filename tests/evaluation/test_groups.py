"""What the ranges of a job depend on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from streamconv.conversion import open_runnable
from streamconv.evaluation.groups import Group, beside, rows_of

NAMES = [
    "token_embd.weight", "token_embd_norm.weight", "position_embd.weight", "per_layer_token_embd.weight", "blk.0.attn_q.weight",
    "blk.1.attn_q.weight", "output_norm.weight", "output.weight",
]  # fmt: skip
MODEL: Any = SimpleNamespace(rows={name: name for name in NAMES})


def test_what_blocks_look_at_beside_states_belongs_to_the_first() -> None:
    assert rows_of(MODEL, 0) == ["token_embd.weight", "blk.0.attn_q.weight"]
    assert beside(MODEL, 0) == ["token_embd_norm.weight", "position_embd.weight", "per_layer_token_embd.weight"]
    assert (rows_of(MODEL, 1), beside(MODEL, 1)) == (["blk.1.attn_q.weight"], [])
    assert set(rows_of(MODEL, None)) == {name for name in NAMES if not name.startswith("blk")}


def test_what_is_beside_is_read_with_the_rest_and_decides_no_identity(data: Path) -> None:
    model, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    first, other = rows_of(model, 0), rows_of(model, 1)
    alone, both = Group(0, "a", 0, (), 0, 1, first), Group(0, "a", 0, (), 0, 1, first, other)
    assert both.identity() == alone.identity()
    assert [*both.spans(0, 1)] == [*alone.spans(0, 1), *Group(0, "b", 1, (), 0, 1, other).spans(0, 1)]
    assert sum(span.length for span in both.everything()) == 2 * int(
        sum(np.prod(rows.shape) for rows in (*first, *other))
    )
