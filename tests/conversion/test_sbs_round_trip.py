"""Weight files of gemma.cpp as sources: what our target made of them comes back, directly and through folders and merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sbs_files as files

import streamconv
from streamconv.check import check_file
from streamconv.rows import matrix_shape

MODELS = {"gemma2": "gemma2-2b-pt", "gemma3": "gemma3-1b", "paligemma": "paligemma2-3b-224"}


def written(path: Path, toy: files.Toy) -> Path:
    path.write_bytes(toy.file())
    return path


def convert(source: Path, out: Path, kind: str, **settings: Any) -> Path:
    streamconv.convert(source, out, sbs_model=MODELS[kind], max_seq_len=64, **settings)
    return out


def equal(path: Path, wanted: dict[str, np.ndarray]) -> None:
    found = streamconv.open(path)
    assert found.keys() == wanted.keys()
    for name, expected in wanted.items():
        rows = found[name]
        assert np.array_equal(rows.read(0, matrix_shape(rows.shape)[0]).reshape(rows.shape), expected), name


@pytest.mark.parametrize("layout", ["split", "exporter"])
@pytest.mark.parametrize("kind", ["gemma2", "gemma3", "paligemma"])
def test_a_file_becomes_a_folder_and_that_the_same_file_again(kind: str, layout: str, tmp_path: Path) -> None:
    toy = files.toy(kind, "exporter")
    source = written(tmp_path / "x.sbs", toy)
    streamconv.convert(source, tmp_path / "folder")
    equal(tmp_path / "folder", toy.hf)
    again = convert(tmp_path / "folder", tmp_path / "again.sbs", kind, type="bf16", sbs_layout=layout)
    assert not [f for f in check_file(again) if f.severity == "error"]
    equal(again, toy.hf)
    direct = convert(source, tmp_path / "direct.sbs", kind, type="bf16", sbs_layout=layout)
    equal(direct, toy.hf)


def test_files_are_merged_like_other_models(tmp_path: Path) -> None:
    a, b = (files.toy("gemma2", seed=seed) for seed in (1, 2))
    written(tmp_path / "a.sbs", a)
    written(tmp_path / "b.sbs", b)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        f"merge_method: linear\ndtype: float32\nmodels:\n- {{model: {tmp_path}/a.sbs, parameters: {{weight: 1}}}}\n"
        f"- {{model: {tmp_path}/b.sbs, parameters: {{weight: 1}}}}\n"
    )
    streamconv.convert(recipe, tmp_path / "merged")
    equal(tmp_path / "merged", {name: (a.hf[name] + b.hf[name]) / 2 for name in a.hf})


def test_what_is_encoded_is_decoded_to_the_type_of_the_output(tmp_path: Path) -> None:
    toy = files.toy("gemma2")
    source = convert(written(tmp_path / "x.sbs", toy), tmp_path / "i8.sbs", "gemma2", type="i8")
    streamconv.convert(source, tmp_path / "auto")
    streamconv.convert(source, tmp_path / "exact", type="F32")
    stored, auto, exact = (streamconv.open(path) for path in (source, tmp_path / "auto", tmp_path / "exact"))
    name = "model.layers.0.mlp.down_proj.weight"
    assert (stored[name].dtype, auto[name].dtype, exact[name].dtype) == ("F32", "BF16", "F32")
    assert np.array_equal(stored[name].read(0, files.D), exact[name].read(0, files.D))
    assert not np.array_equal(stored[name].read(0, files.D), auto[name].read(0, files.D))
