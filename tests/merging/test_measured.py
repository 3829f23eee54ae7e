"""Jobs measure whole tensors before they read a row; whoever reads rows without a job need not think of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from merge_cases import CONFIG, random_model, values_of
from small_models import read_safetensors

import streamconv
from streamconv import cli, rows

SHAPES = {"model.layers.0.self_attn.q_proj.weight": (60, 40), "model.norm.weight": (40,)}
RECIPES = {
    "ties": "base_model: a\nmodels: [{model: b}, {model: c}]\nparameters: {weight: 1, density: 0.4}",
    "sce": "base_model: a\nmodels: [{model: b}, {model: c}]\nparameters: {select_topk: 0.3}",
    "slerp": "base_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}",
    "arcee_fusion": "base_model: a\nmodels: [{model: a}, {model: b}]",
}


@pytest.fixture
def jobs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are read before they were measured fail."""

    class Refuses:
        def __enter__(self) -> None:
            raise AssertionError("read before it was measured")

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(rows, "_measuring", Refuses())


def recipe(folder: Path, method: str) -> Path:
    for seed, name in enumerate("abc"):
        random_model(folder / name, seed, SHAPES, {**CONFIG, "num_hidden_layers": 1})
    text = RECIPES[method]
    for name in "abc":
        text = text.replace(f"model: {name}", f"model: {folder / name}")
    path = folder / f"{method}.yml"
    path.write_text(f"merge_method: {method}\n{text}\n")
    return path


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.usefixtures("jobs_only")
def test_a_job_has_measured_whatever_it_reads(method: str, tmp_path: Path) -> None:
    streamconv.convert(recipe(tmp_path, method), tmp_path / "out", threads=2, chunk_bytes=1024)


@pytest.mark.usefixtures("jobs_only")
def test_an_extraction_has_measured_whatever_it_reads(tmp_path: Path) -> None:
    recipe(tmp_path, "ties")
    words = ["extract-lora", str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "out"), "--rank", "4", "--quiet"]
    assert cli.main(words) == 0


@pytest.mark.parametrize("method", RECIPES)
def test_rows_that_are_read_without_a_job_are_those_of_the_job(method: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, method)
    streamconv.convert(path, tmp_path / "out")
    made = read_safetensors(tmp_path / "out" / "model.safetensors")
    for name, found in streamconv.open(path).items():
        assert found.read(0, 1).shape == (1, 40)
        np.testing.assert_array_equal(values_of(found).astype("<f4").view("<u4"), made[name][1].view("<u4"))
