"""What a plan tells of merging and of time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from merge_cases import random_model
from test_merge_stacks import config, shapes

from streamconv import conversion
from streamconv.cli import main
from streamconv.conversion import estimate
from streamconv.quant.sbs.types import SBS_TYPES
from streamconv.quant.types import TYPES

Plan = Callable[..., str]
#: documents: an average of two, then TIES of that and one more
RECIPE = """name: half
merge_method: linear
models: [{{model: {a}, parameters: {{weight: 0.5}}}}, {{model: {b}, parameters: {{weight: 0.5}}}}]
dtype: bfloat16
---
merge_method: ties
base_model: {a}
models: [{{model: half, parameters: {{weight: 1, density: 0.5}}}}, {{model: {b}, parameters: {{weight: 1, density: 0.5}}}}]
dtype: bfloat16
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        random_model(tmp_path / name, seed, shapes(2), config("llama", 2), "BF16")
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE.format(a=tmp_path / "a", b=tmp_path / "b"))
    return path


@pytest.fixture
def plan(capfd: pytest.CaptureFixture[str]) -> Plan:
    def call(*words: object) -> str:
        capfd.readouterr()
        assert main(["plan", *map(str, words)]) == 0
        return capfd.readouterr().out

    return call


def test_a_plan_names_the_method_of_every_tensor_that_is_merged(plan: Plan, recipe: Path, tmp_path: Path) -> None:
    facts = json.loads(plan(recipe, tmp_path / "out", "--json"))
    assert {(t["method"], t["merged"]) for t in facts["tensors"]} == {("ties", 3)}
    lines = plan(recipe, tmp_path / "out").splitlines()
    assert f"merges {len(facts['tensors'])} tensors by ties of 3" in lines
    assert sum(line.endswith("; ties of 3") for line in lines) == len(facts["tensors"])


def test_a_tensor_of_several_outputs_is_merged_once(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    small = data / "checkpoints" / "mistral-spm" / "hf"
    other = shutil.copytree(small, tmp_path / "other")
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        f"merge_method: linear\nparameters: {{weight: 1}}\nmodels: [{{model: {small}}}, {{model: {other}}}]\n"
    )
    lines = plan(recipe, tmp_path / "{type}.gguf", "--type", "Q8_0,F16").splitlines()
    n_merged = sum(line.endswith("; linear of 2") for line in lines)
    assert f"merges {n_merged // 2} tensors by linear of 2" in lines
    for cost in ("_START_S", "_READ_NS", "_WRITE_NS", "_PACK_NS"):
        monkeypatch.setattr(estimate, cost, 0.0)
    monkeypatch.setattr(estimate, "_DISK_BYTES_PER_S", 1e15)
    one, two = (
        estimate.seconds(conversion.prepare(recipe, tmp_path / "{type}.gguf", conversion.Options(type=types)), 1)
        for types in ("F16", "F16,BF16")
    )
    assert one == two > 0


def test_what_is_only_copied_has_no_method(plan: Plan, recipe: Path, tmp_path: Path) -> None:
    facts = json.loads(plan(tmp_path / "a", tmp_path / "out", "--json"))
    assert not any("method" in t for t in facts["tensors"])
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {tmp_path / 'a'}}}]\n")
    assert "merges" not in plan(recipe, tmp_path / "out")


def test_the_time_of_a_plan_grows_with_the_work_and_shrinks_with_threads(
    monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(estimate, "_START_S", 0.0)
    monkeypatch.setattr(estimate, "_DISK_BYTES_PER_S", 1e15)

    def seconds(source: Path, name: str, threads: int, **options: Any) -> float:
        return estimate.seconds(conversion.prepare(source, tmp_path / name, conversion.Options(**options)), threads)

    alone = seconds(recipe, "out", 1)
    assert alone == pytest.approx(2 * seconds(recipe, "out", 2))
    assert alone > 3 * seconds(tmp_path / "a", "out", 1)


def test_the_disk_bounds_the_time_of_a_plan(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, recipe: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(estimate, "_DISK_BYTES_PER_S", 1000.0)
    facts = json.loads(plan(recipe, tmp_path / "out", "--json"))
    assert facts["estimated_s"] == pytest.approx(1 + (facts["input_bytes"] + facts["output_bytes"]) / 1000, abs=0.1)
    assert "time: roughly" in plan(recipe, tmp_path / "out")


def test_every_type_that_is_searched_has_a_known_speed() -> None:
    assert set(estimate._ENCODE_NS) <= set(TYPES) | set(SBS_TYPES)
    searched = {name for name in TYPES if name.startswith("IQ") or name.endswith("_K")} - {"Q8_K"}
    assert searched <= set(estimate._ENCODE_NS)
