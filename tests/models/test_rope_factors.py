"""The frequency factors of llama3 RoPE scaling: those of the reference converter, and correctly rounded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamconv.errors import BadInput
from streamconv.models.config import normalise
from streamconv.models.families.llama import FAMILY, rope_factors
from streamconv.rows import Floats

SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}  # fmt: skip
#: theta, what else its scaling says, and the SHA-256 of what the reference converter writes for heads of 16
REFERENCE = {
    "apertus": (12000000.0, {}, "53f1a0d59aac"),
    "deci, llama, llama4": (500000.0, {}, "57ff17b2f9ea"),
    "exaone": (1000000.0, {}, "67a9e32c063d"),
    "exaone4": (1000000.0, {"factor": 16.0}, "dde7b117fef5"),
    "llama, longer": (500000.0, {"original_max_position_embeddings": 128}, "5d7477cc96e5"),
}


def factors(theta: object, head_dim: int = 16, **scaling: object) -> Floats:
    values = {"head_dim": head_dim, "rope_theta": theta, "rope_scaling": {**SCALING, **scaling}}
    return rope_factors(normalise(values, FAMILY.classes))


@pytest.mark.parametrize("name", REFERENCE)
def test_factors_are_those_of_the_reference_converter(name: str) -> None:
    theta, scaling, digest = REFERENCE[name]
    assert hashlib.sha256(factors(theta, **scaling).tobytes()).hexdigest()[:12] == digest


def test_factors_of_every_recorded_architecture_hold(reference: Path) -> None:
    held = 0
    for path in sorted((reference / "golden" / "zoo").glob("*.json")):
        case = json.loads(path.read_text())
        expected = {sha for output in case["outputs"].values() for sha in _recorded(output)}
        config = case["files"].get("config.json", {})
        config = json.loads(config) if isinstance(config, str) else config
        config = {**config, **(config.get("text_config") or {})}
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if expected and rope.get("rope_type") == "llama3" and not isinstance(config.get("rope_theta"), list):
            found = rope_factors(normalise(config, FAMILY.classes))
            assert hashlib.sha256(found.tobytes()).hexdigest() in expected, path.name
            held += 1
    assert held >= 7


def _recorded(output: dict[str, Any]) -> Iterator[str]:
    if isinstance(output, dict):
        yield from (t[3] for t in output.get("tensors", ()) if t[0] == "rope_freqs.weight")


@pytest.mark.parametrize("theta", [10000.0, 12345.678, 500000.0, 1e6, 1.2e7, 1.7e8])
@pytest.mark.parametrize("head_dim", [16, 80, 96, 128, 256])
def test_every_step_is_correctly_rounded(theta: float, head_dim: int) -> None:
    f32 = np.float32
    base, (factor, low, high, original) = f32(theta), (8.0, 1.0, 4.0, 8192.0)
    for i, found in enumerate(factors(theta, head_dim, original_max_position_embeddings=8192)):
        with localcontext() as context:
            context.prec = 60
            power = f32(Decimal(float(base)) ** Decimal(float(f32(2 * i) / f32(head_dim))))
        frequency = f32(1) / power
        wavelength = (f32(1) / frequency) * f32(2 * np.pi)
        share = ((f32(1) / wavelength) * f32(original) - f32(low)) / f32(high - low)
        between = f32(1) / ((f32(1) - share) / f32(factor) + share)
        long, short = wavelength > f32(original / low), wavelength < f32(original / high)
        assert found == (f32(factor) if long else f32(1) if short else between), i


@pytest.mark.parametrize("theta", [0, -5.0, "10000", [1.0], 10**60])
def test_a_base_that_makes_no_sense_is_refused(theta: object) -> None:
    with pytest.raises(BadInput, match="rope_theta"):
        factors(theta)
