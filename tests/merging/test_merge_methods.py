"""Every merge method against what mergekit 0.1.5 made of the same models."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import (
    CONFIG,
    arrays,
    cases,
    difference,
    floats,
    open_text,
    random_model,
    values_of,
    words_of,
    write_model,
)

from streamconv import merging, sources
from streamconv.errors import BadInput
from streamconv.merging import merged as merged_rows
from streamconv.merging import methods
from streamconv.merging.methods import METHODS
from streamconv.sources.safetensors import read_safetensors

_MODELS = [f"{kind}/{name}" for kind in ("llama", "llama_bf16") for name in ("base", "ft1", "ft2", "ft3")]
#: mergekit rounds every intermediate result of a task vector to bfloat16 and the case does not record how far that leads
_ROUNDED = {"multi_doc": {"stage_b": 0.02}}
SHAPES = {"model.layers.0.mlp.up_proj.weight": (40, 24), "model.layers.0.input_layernorm.weight": (24,)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for model in _MODELS:
        write_model(root / "inputs" / model, arrays(f"inputs/{model}"), CONFIG)
    return root


@pytest.mark.parametrize("name", cases())
def test_tensors_are_those_of_mergekit(name: str, inputs: Path) -> None:
    case = cases()[name]
    merged = open_text(inputs, case["recipe"])
    expected = arrays(name)
    assert set(merged.tensors) == set(expected)
    for tensor, words in expected.items():
        rows = merged.tensors[tensor]
        assert rows.shape == words.shape
        assert [rows.dtype] == case["dtypes"]
        assert difference(name, rows.dtype, floats(words), values_of(rows, 5), case["gap"]) is None, tensor


def _reference_cases() -> list[str]:
    folder = (
        Path(os.environ.get("STREAMCONV_REFERENCE", Path(__file__).resolve().parents[3] / "shared")) / "golden/merge"
    )
    return sorted(p.parent.name for p in folder.glob("*/config.yml"))


@pytest.mark.parametrize("name", [n for n in _reference_cases() if n not in ("extract_lora_r4", "tok_union_other_bpe")])
def test_whole_reference_cases(name: str, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = reference / "golden" / "merge"
    monkeypatch.chdir(root)
    merged = merging.open_recipe(Path(name, "config.yml"), sources.open_checkpoint)
    meta = json.loads(Path(name, "meta.json").read_text())
    gap = meta.get("bf16_arith_vs_f32_arith") or _ROUNDED.get(name)
    want = {}
    for path in sorted(Path(name, "expected").glob("*.safetensors")):
        want.update(read_safetensors(sources.MappedFile(path)).tensors)
    assert set(merged.tensors) == set(want)
    for tensor, rows in want.items():
        got = merged.tensors[tensor]
        assert (got.shape, got.dtype) == (rows.shape, rows.dtype), tensor
        assert difference(name, rows.dtype, values_of(rows), values_of(got), gap) is None, tensor
    side = merged.side or {}
    for file in ("config.json", "tokenizer.json", "tokenizer.model", "generation_config.json", "chat_template.jinja"):
        assert file in side or not Path(name, "expected", file).exists()


def test_every_module_of_the_folder_is_a_method() -> None:
    names = [p.stem for p in Path(methods.__path__[0]).glob("[!_]*.py")]
    assert sorted(METHODS) == sorted(names)


def _recipe(method: str, **parameters: Any) -> dict[str, Any]:
    """A recipe with two models beside the base, or as many as the method takes."""
    found = METHODS[method]
    names = ["b"] if found.most == 1 else ["b", "c"]
    models = [{"model": name, "parameters": {"weight": 0.5, "density": 0.6, "epsilon": 0.1}} for name in names]
    recipe: dict[str, Any] = {"merge_method": method, "models": models, "parameters": {"t": 0.3, **parameters}}
    if found.base == "required":
        recipe["base_model"] = "a"
    return recipe


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("method", "settings"), [(method, {}) for method in METHODS] + [("ties", {"rescale": True})])
def test_the_same_numbers_stored_as_bfloat16_or_float32_merge_to_the_same_bits(
    method: str, settings: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    name, shape = next(iter(SHAPES.items()))
    for seed, model in enumerate("abc"):
        r = np.random.default_rng(seed)
        words = words_of("BF16", r.standard_normal(shape) * 10.0 ** r.integers(-7, 1, shape))  # float16 rounds some
        write_model(tmp_path / "words" / model, {name: words}, CONFIG)
        write_model(tmp_path / "floats" / model, {name: floats(words)}, CONFIG)
    recipe = {**_recipe(method, **settings), "dtype": dtype, "out_dtype": "float32"}
    found, expected = (values_of(open_text(tmp_path / kind, recipe).tensors[name]) for kind in ("words", "floats"))
    np.testing.assert_array_equal(found.view("<u4"), expected.view("<u4"))


@pytest.mark.parametrize("lines", ["dtype: bfloat16\n", "dtype: float16\nout_dtype: bfloat16\n"])
def test_bfloat16_is_made_as_it_is_read(lines: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(merged_rows, "_WORDS", 48)  # a row at a time
    monkeypatch.setattr(merged_rows, "_TILE", 48)
    values = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)
    text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n" + lines
    for values[3, 5] in (7.0, np.nan):
        write_model(tmp_path / "a", {"w": words_of("BF16", values)}, CONFIG)
        write_model(tmp_path / "b", {"w": values * np.float32(1.001)}, CONFIG)
        rows = open_text(tmp_path, text).tensors["w"]
        assert isinstance(rows, merged_rows.MergedRows)
        made = np.empty((40, 48), np.uint8)
        largest, expected = rows.make("BF16", 0, 40, made), values_of(rows)
        np.testing.assert_array_equal(made.view("<u2"), expected.view("<u4") >> 16)
        np.testing.assert_equal(largest, np.abs(expected).max())
        assert rows.make("F32", 0, 0, made[:0]) is None


@pytest.mark.parametrize("method", METHODS)
def test_any_cut_into_rows_and_any_number_of_threads_gives_the_same_bits(method: str, tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        random_model(tmp_path / name, seed, SHAPES, {**CONFIG, "num_hidden_layers": 1})
    whole = open_text(tmp_path, _recipe(method), seed=3).tensors
    cut = open_text(tmp_path, _recipe(method), seed=3).tensors
    for name, rows in whole.items():
        values = values_of(rows)
        with ThreadPoolExecutor(3) as pool:
            for found in pool.map(partial(values_of, cut[name]), (1, 7, 3)):
                np.testing.assert_array_equal(found.view("<u4"), values.view("<u4"))


@pytest.mark.parametrize("method", METHODS)
def test_merging_a_model_with_itself_changes_nothing(method: str, tmp_path: Path) -> None:
    config = {**CONFIG, "num_hidden_layers": 1}
    for name in "abc":
        random_model(tmp_path / name, 0, SHAPES, config, "BF16")
    merged = open_text(tmp_path, {**_recipe(method), "dtype": "bfloat16"})
    model = sources.open_checkpoint(tmp_path / "a")
    for name, rows in merged.tensors.items():
        assert rows.dtype == "BF16"
        np.testing.assert_allclose(values_of(rows), values_of(model.tensors[name]), rtol=2**-7)


def test_integers_are_copied_where_all_models_agree_and_refused_where_not(tmp_path: Path) -> None:
    for name, last in (("a", 3), ("b", 3), ("c", 4)):
        write_model(tmp_path / name, {"table": np.array([1, 2, last], "<i8")}, {})
    recipe = "merge_method: linear\nmodels: [{model: a}, {model: %s}]\nparameters: {weight: 1}\n"
    rows = open_text(tmp_path, recipe % "b").tensors["table"]
    assert rows.dtype == "I64"
    assert rows.stored(0, 1).tobytes() == np.array([1, 2, 3], "<i8").tobytes()  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="'table': a and c contain different I64 numbers"):
        open_text(tmp_path, recipe % "c").tensors["table"].read(0, 1)


def test_ramplus_takes_an_epsilon_of_zero_with_and_without_changes(tmp_path: Path) -> None:
    base = np.zeros((2, 4), "<f4")
    shared = base.copy()
    shared[0, 0] = 1
    for name, values in (("a", base), ("b", shared), ("c", shared)):
        write_model(tmp_path / name, {"w": values, "still": base}, {})
    merged = open_text(tmp_path, _recipe("ramplus_tl", epsilon=0)).tensors
    np.testing.assert_array_equal(values_of(merged["w"]), shared)
    np.testing.assert_array_equal(values_of(merged["still"]), base)


def test_a_value_that_is_not_a_number_survives_the_vote(tmp_path: Path) -> None:
    base = np.ones((2, 4), "<f4")
    broken = base.copy()
    broken[1, 2] = np.nan
    for name, values in (("a", base), ("b", broken), ("c", base - 1)):
        write_model(tmp_path / name, {"w": values}, {})
    merged = values_of(open_text(tmp_path, {**_recipe("ties")}).tensors["w"])
    assert np.isnan(merged[1, 2])
    assert np.isfinite(merged).sum() == 7
