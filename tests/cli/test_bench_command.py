"""What the machine will do, as it is measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamconv.quant.speed import USUAL
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
