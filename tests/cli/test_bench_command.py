"""What the machine will do, as it is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamconv.conversion import estimate
from streamconv.kernels import cache
from streamconv.quant import speed
from streamconv.quant.speed import USUAL, Speed
from streamconv.quant.types import TYPES


def test_a_line_tells_what_a_type_takes_with_and_without_importance(here: Any) -> None:
    lines = here("bench", "--type", "q4_0,Q8_0").out.splitlines()
    assert "bits" in lines[0]
    (first, plain, weighted), (second, alone, none) = (line.split() for line in lines[1:3])
    assert (first, second, none) == ("Q4_0", "Q8_0", "-")
    assert 0 < float(plain) < float(weighted)
    assert 0 < float(alone) < 1000
    assert lines[3].startswith("A billion weights")


def test_json_holds_the_same_numbers_and_the_processor(here: Any) -> None:
    found = json.loads(here("bench", "--type", "Q8_0", "--type", "Q4_0", "--json").out)
    assert found["processor"]
    assert found["vector_bits"] in (128, 256, 512)
    assert found["cores"] >= 1
    assert [each["type"] for each in found["types"]] == ["Q8_0", "Q4_0"]
    assert found["types"][0]["weighted_ns"] is None
    assert found["types"][1]["weighted_ns"] > found["types"][1]["plain_ns"] > 0


def test_usual_types_have_kernels() -> None:
    assert all(TYPES[name].module for name in USUAL)


@pytest.mark.parametrize("name", ["Q4_K_M", "I32"])
def test_what_is_no_type_of_tensors_is_refused(here: Any, name: str) -> None:
    result = here("bench", "--type", f"Q8_0,{name}")
    assert result.code == 64
    assert f"--type {name}" in result.err


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of kernels in which nothing is."""
    monkeypatch.setattr(cache, "_place", lambda: (tmp_path, ""))
    return tmp_path


def test_plans_estimate_with_what_was_measured_on_this_processor(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert speed.measured() == {}
    assert estimate._encode_ns("Q4_0", False, {}) == estimate._ENCODE_NS["Q4_0"][0]
    speed.remember([Speed("Q4_0", 7.0, 9.0), Speed("Q8_0", 3.0, None), Speed("IQ2_XXS", None, 50.0)])
    speed.remember([Speed("Q4_0", 8.0, 9.5)])
    here = speed.measured()
    found = [
        estimate._encode_ns(*each, here) for each in (("Q4_0", False), ("Q4_0", True), ("Q8_0", True), ("Q4_1", True))
    ]
    assert found == [8.0, 9.5, 3.0, estimate._ENCODE_NS["Q4_1"][1]]
    monkeypatch.setattr(speed, "processor", lambda: "another")
    assert speed.measured() == {}


def test_a_damaged_record_of_speeds_counts_as_none(own_cache: Path) -> None:
    speed.remember([Speed("Q4_0", 7.0, 9.0)])
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert speed.measured() == {}


def test_the_command_keeps_what_it_measured(here: Any) -> None:
    printed = json.loads(here("bench", "--type", "Q4_0", "--json").out)["types"][0]
    assert speed.measured()["Q4_0"] == Speed(*printed.values())
