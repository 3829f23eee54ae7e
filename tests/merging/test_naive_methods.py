"""Merge methods give what slow, obvious twins give, where elements are equal, zero, opposed or far apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import naive_methods
import numpy as np
import pytest
from merge_cases import open_text, values_of, write_model

from streamconv.merging.methods import METHODS

SHAPE = (11, 37)
NAME = "model.layers.0.mlp.up_proj.weight"
OF_ALL = {"density": 0.37, "gamma": 0.05, "t": 0.3, "epsilon": 1e-3, "lambda": 0.8}
ROWS = {
    "noise": lambda r: r.standard_normal((3, *SHAPE)),
    "equal magnitudes": lambda r: r.choice([-0.5, 0.0, 0.5], (3, *SHAPE)) + 1,
    "far apart": lambda r: r.standard_normal((3, *SHAPE)) * 10.0 ** r.integers(-6, 3, (3, *SHAPE)),
    "mostly unchanged": lambda r: np.where(r.random((3, *SHAPE)) < 0.9, 1.0, r.standard_normal((3, *SHAPE))),
}


def has(method: str, parameter: str) -> bool:
    return any(p.name == parameter for p in METHODS[method].parameters)


#: every method with every setting of the switches that it has
CASES = [
    (method, normalize, rescale)
    for method in naive_methods.TWINS
    for normalize in (False, True)
    for rescale in (False, True)
    if has(method, "normalize") >= normalize and has(method, "rescale") >= rescale
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("method", "normalize", "rescale"), CASES)
def test_values_are_those_of_a_loop_over_single_elements(
    method: str, rows: str, normalize: bool, rescale: bool, tmp_path: Path
) -> None:
    found = METHODS[method]
    switches = {"normalize": normalize, "rescale": rescale}
    models = ROWS[rows](np.random.default_rng(3)).astype(np.float32)
    if found.most == 1:
        models = models[:2]
    for name, x in zip("abc", models, strict=False):
        write_model(tmp_path / name, {NAME: x}, {})
    weights = [0.5, 0.5] if rows == "equal magnitudes" else [0.7, 0.4]  # equal ones: votes that end in a draw
    weights = weights[: len(models) - 1]
    shared = {name: value for name, value in {**OF_ALL, **switches}.items() if has(method, name)}
    recipe: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in zip("bc", weights, strict=False)],
        "parameters": shared,
    }
    if not has(method, "weight"):
        recipe["models"] = [{"model": m} for m in "bc"[: len(models) - 1]]
    if found.base == "required":
        recipe["base_model"] = "a"
    got = values_of(open_text(tmp_path, recipe).tensors[NAME])
    flat = [[float(v) for v in x.reshape(-1)] for x in models]
    expected = naive_methods.TWINS[method](flat, {**shared, **switches, "weight": weights})
    scale = np.abs(models).max(axis=0).reshape(-1) + 1e-3
    assert (np.abs(got.reshape(-1) - np.array(expected)) <= 2e-5 * scale).all()
