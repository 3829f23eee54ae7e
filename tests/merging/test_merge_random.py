"""Random methods: the generator, its statistics, and that only seed, tensor, model and element decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import CONFIG, open_text, random_model, values_of, write_model

from streamconv import merging, sources
from streamconv.errors import BadInput
from streamconv.kernels import load
from streamconv.merging.counter_random import CounterRandom

NAME = "model.layers.0.mlp.up_proj.weight"
SEEDS = 30


def test_the_generator_is_philox() -> None:
    out = np.empty((1, 2), np.uint64)
    load(".merging.kernels.random").philox(np.zeros(2, np.uint32), 0, out)
    assert [f"{word:08x}" for word in out.view(np.uint32)[0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_words_are_a_function_of_key_and_element() -> None:
    whole = np.empty(1000, np.uint32)
    CounterRandom(1, "tensor", 0).words(0, whole)
    for first, n in ((0, 7), (3, 1), (5, 300), (997, 3)):
        part = np.empty(n, np.uint32)
        CounterRandom(1, "tensor", 0).words(first, part)
        np.testing.assert_array_equal(part, whole[first : first + n])
    for other in (CounterRandom(2, "tensor", 0), CounterRandom(1, "tensor", 1), CounterRandom(1, "another", 0)):
        words = np.empty(1000, np.uint32)
        other.words(0, words)
        assert not np.any(words == whole)


def test_normal_numbers_are_normal() -> None:
    x = np.empty(1 << 18, np.float32)
    CounterRandom(5, "noise").normals(0, x)
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs(float((np.abs(x) < 1).mean()) - 0.6827) < 0.005
    assert 4 < np.abs(x).max() < 6


def _model_pair(folder: Path, shape: tuple[int, ...] = (96, 64)) -> None:
    config = {**CONFIG, "num_hidden_layers": 1}
    for seed, name in enumerate(("base", "tuned")):
        random_model(folder / name, seed, {NAME: shape, "model.norm.weight": (64,)}, config)


def _recipe(method: str, rescale: bool, **parameters: float) -> dict[str, Any]:
    return {
        "merge_method": method,
        "base_model": "base",
        "models": [{"model": "tuned", "parameters": {"weight": 1, **parameters}}],
        "parameters": {"rescale": rescale},
    }


def _facts(base: np.ndarray, tuned: np.ndarray, merged: np.ndarray) -> dict[str, Any]:
    """What ``random_methods_stats.json`` holds of one seed."""
    d, kept = tuned - base, merged - base
    mask = kept != 0
    rank = np.argsort(np.argsort(np.abs(d.reshape(-1, d.shape[-1])), axis=1), axis=1) / d.shape[-1]
    quartiles = [float(mask.reshape(rank.shape)[(rank >= q / 4) & (rank < (q + 1) / 4)].mean()) for q in range(4)]
    scales = kept[mask] / d[mask]
    return {
        "kept": float(mask.mean()), "l1": float(np.abs(kept).sum() / np.abs(d).sum()), "quartiles": quartiles,
        "scale": float(np.median(scales)), "spread": float(np.percentile(scales, 90) - np.percentile(scales, 10)),
    }  # fmt: skip


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("method", "density", "epsilon"), [("dare_linear", 0.3, 0.0), ("della_linear", 0.5, 0.2)])
def test_kept_share_scale_and_sum_of_magnitudes(
    method: str, density: float, epsilon: float, rescale: bool, tmp_path: Path
) -> None:
    _model_pair(tmp_path)
    models = [sources.open_checkpoint(tmp_path / name).tensors for name in ("base", "tuned")]
    own = {"density": density, **({"epsilon": epsilon} if epsilon else {})}
    for name in (NAME, "model.norm.weight"):
        base, tuned = (values_of(tensors[name]) for tensors in models)
        found = []
        for seed in range(SEEDS):
            merged = open_text(tmp_path, _recipe(method, rescale, **own), seed=seed)
            found.append(_facts(base, tuned, values_of(merged.tensors[name])))
        n = base.size * SEEDS
        assert abs(np.mean([f["kept"] for f in found]) - density) < 5 * np.sqrt(density * (1 - density) / n)
        assert len({f["kept"] for f in found}) > 1
        if rescale:
            assert max(abs(f["l1"] - 1) for f in found) < 1e-5
        else:
            assert max(abs(f["scale"] - 1) for f in found) < 1e-5
        assert max(f["spread"] for f in found) < 1e-3
        if epsilon:
            for q, share in enumerate(np.mean([f["quartiles"] for f in found], axis=0)):
                expected = density - epsilon + 2 * epsilon * (2 * q + 1) / 8
                assert abs(share - expected) < 5 * np.sqrt(0.25 / (n / 4)) + 0.01


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_statistics_of_thirty_seeds_are_those_of_mergekit(
    method: str, rescale: bool, reference: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    golden = reference / "golden" / "merge"
    recorded = json.loads((golden / "random_methods_stats.json").read_text())[
        method + ("" if rescale else "_norescale")
    ]
    monkeypatch.chdir(golden)
    own = {"density": 0.3} if method == "dare_linear" else {"density": 0.5, "epsilon": 0.2}
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        json.dumps(_recipe(method, rescale, **own))
        .replace('"base"', '"inputs/llama/base"')
        .replace('"tuned"', '"inputs/llama/ft1"')
    )
    models = [sources.open_checkpoint(Path("inputs/llama", name)).tensors for name in ("base", "ft1")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in recorded}
    for seed in range(SEEDS):
        merged = merging.open_recipe(recipe, sources.open_checkpoint, seed=seed)
        for name in recorded:
            base, tuned = (values_of(tensors[name]) for tensors in models)
            found[name].append(_facts(base, tuned, values_of(merged.tensors[name])))
    for name, facts in recorded.items():
        kept = [f["kept"] for f in found[name]]
        close = 5 * np.sqrt(2 / SEEDS) * facts["kept_sd_over_seeds"]
        assert abs(np.mean(kept) - facts["kept_mean"]) < close
        assert 0.5 < np.std(kept) / facts["kept_sd_over_seeds"] < 2
        assert abs(np.mean([f["l1"] for f in found[name]]) - facts["l1_ratio_mean"]) < (1e-5 if rescale else 2 * close)
        assert abs(np.median([f["scale"] for f in found[name]]) / facts["scale_median"] - 1) < 0.05
        quartiles = np.mean([f["quartiles"] for f in found[name]], axis=0)
        for ours, theirs in zip(quartiles, facts.get("kept_by_rank_quartile", []), strict=False):
            assert abs(ours - theirs) < 5 * close


def test_different_documents_models_and_seeds_draw_differently(tmp_path: Path) -> None:
    _model_pair(tmp_path)
    recipe = _recipe("dare_linear", True, density=0.5)
    first, again, other = (values_of(open_text(tmp_path, recipe, seed=s).tensors[NAME]) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.3


def test_della_refuses_what_is_no_probability(tmp_path: Path) -> None:
    _model_pair(tmp_path)
    with pytest.raises(BadInput, match=r"density 0\.9 ± epsilon 0\.2 leaves the range"):
        open_text(tmp_path, _recipe("della", True, density=0.9, epsilon=0.2))


def test_a_row_of_one_element_is_kept_with_the_mean_probability(tmp_path: Path) -> None:
    for name, value in (("base", 0.0), ("tuned", 1.0)):
        write_model(tmp_path / name, {"w": np.full((4000, 1), value, "<f4")}, {})
    merged = values_of(open_text(tmp_path, _recipe("della_linear", False, density=0.5, epsilon=0.2)).tensors["w"])
    assert abs(merged.mean() - 0.5) < 0.05


def test_an_infinite_value_of_an_input_that_is_kept_whole_spoils_no_other(tmp_path: Path) -> None:
    _model_pair(tmp_path)
    values = np.ones((96, 64), np.float32)
    values[0, 0] = np.inf
    write_model(tmp_path / "whole", {NAME: values, "model.norm.weight": np.ones(64, np.float32)}, CONFIG)
    recipe = _recipe("dare_linear", True, density=0.5)
    recipe["models"].append({"model": "whole", "parameters": {"weight": 1, "density": 1}})
    merged = values_of(open_text(tmp_path, recipe).tensors[NAME]).reshape(96, 64)
    assert np.flatnonzero(~np.isfinite(merged)).tolist() == [0]
