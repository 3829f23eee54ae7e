"""exp as torch computes it where MKL has AVX-512, whatever this processor is."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from streamconv.kit import NEGATIVE_EXP
from streamconv.kit.exponential import exp, fused

#: SHA-256 of ``torch.exp`` (2.13 with MKL 2024.2, AVX-512) of 65536 numbers from -4 to 4
TORCH = "ad98f21cd822f127bf6ec9f27887c0db8d8d4ed4026d421d36d5a70929dc5c9a"


def test_the_bits_are_those_of_torch() -> None:
    x = (np.arange(1 << 16) - 32768).astype(np.float32) * np.float32(2**-13)
    made = exp(x)
    assert hashlib.sha256(made.tobytes()).hexdigest() == TORCH
    assert np.array_equal(NEGATIVE_EXP.call(x), -made)
    nearest = np.exp(x.astype(np.float64)).astype(np.float32)
    assert 0 < np.count_nonzero(made != nearest) < len(x) // 50, "which the nearest are not"


def test_no_result_is_off_by_more_than_a_unit_in_the_last_place() -> None:
    x = np.random.default_rng(0).uniform(-87, 88, 1 << 16).astype(np.float32)
    true = np.exp(x.astype(np.float64))
    assert np.all(np.abs(exp(x) - true) < 0.75 * np.spacing(true.astype(np.float32)))


def test_what_float32_does_not_hold_is_zero_infinite_or_not_a_number() -> None:
    found = exp(np.array([0, -0.0, 1000, -1000, np.inf, -np.inf, 88.8, -104, 1e-45], np.float32))
    assert found.tolist() == [1, 1, math.inf, 0, math.inf, 0, math.inf, 0, 1]
    assert np.isnan(exp(np.array([np.nan], np.float32)))[0]
    assert 0 < exp(np.array([-103], np.float32))[0] < 2**-126


@pytest.mark.parametrize("scale", [1.0, 2.0**-24, 2.0**-30, 2.0**20])
def test_a_fused_product_and_sum_is_rounded_once(scale: float) -> None:
    r = np.random.default_rng(1)
    a, b, c = (r.standard_normal(2000).astype(np.float32) for _ in range(3))
    c *= np.float32(scale)
    for found, x, y, z in zip(fused(a, b, c).tolist(), a.tolist(), b.tolist(), c.tolist(), strict=True):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        near = [Fraction(float(v)) for v in (np.nextafter(np.float32(found), np.float32(s)) for s in (-np.inf, np.inf))]
        assert all(abs(Fraction(found) - exact) <= abs(v - exact) for v in near)
