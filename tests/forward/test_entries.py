"""The entries that an importance matrix is planned with are the matrices whose inputs are told."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import model_of, stated

from streamconv import forward
from streamconv.evaluation.matrix import shapes_of
from streamconv.rows import Floats


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if i % 8 else []) for i, n in enumerate(stated())]
)
def test_every_planned_entry_is_told_and_no_other(name: str) -> None:
    model = model_of(name)
    tokens = (np.arange(32).reshape(2, 16) % 7).astype(np.int32)
    hidden, told = forward.embed(model, tokens), dict[str, set[int]]()
    for number in range(model.n_layers):
        after = np.zeros_like(hidden)

        def observe(name: str, block: int, x: Floats, expert: int | None) -> None:
            told.setdefault(name, set()).add(x.shape[1])

        forward.run_layer(model, number, tokens, hidden, after, observe=observe)
        hidden = after
    planned = {shape.name: {shape.n_cols} for shape in shapes_of(model)}
    assert {n: planned[n] for n in planned if "_exps" not in n} == {n: told[n] for n in told if "_exps" not in n}
    assert told.items() <= planned.items()  # experts that nothing reached are not told
