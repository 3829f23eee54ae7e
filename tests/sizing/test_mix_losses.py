"""What types lose of matrices, and matrices as they are read from a file of that type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamconv
from streamconv import sources
from streamconv.kit import Constant
from streamconv.quant.base import codec
from streamconv.sizing.curves import losses, sampled
from streamconv.sizing.requantized import Requantized


def _rows(shape: tuple[int, ...], seed: int = 0) -> Constant:
    return Constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def test_rows_are_those_that_a_file_of_the_type_has(data: Path, tmp_path: Path) -> None:
    model = data / "checkpoints" / "mistral-spm" / "hf"
    streamconv.convert(model, tmp_path / "f32.gguf", type="F32")
    streamconv.convert(tmp_path / "f32.gguf", tmp_path / "q.gguf", type="Q5_0", pure=True)
    plain, made = (sources.open_checkpoint(tmp_path / name).tensors for name in ("f32.gguf", "q.gguf"))
    for name in ("blk.0.attn_q.weight", "token_embd.weight"):
        n_rows = made[name].shape[0]
        found = Requantized(plain[name], made[name].dtype)
        assert np.array_equal(found.read(0, n_rows), made[name].read(0, n_rows))
        assert np.array_equal(found.read(3, 7), made[name].read(3, 7))
        assert np.array_equal(
            Requantized(made[name], "Q5_0").read(0, 5), made[name].read(0, 5)
        )  # copied, not made again


def test_experts_are_quantized_with_their_own_importance_and_count_by_their_visits() -> None:
    rows = _rows((2, 32, 64))
    weights = np.random.default_rng(1).uniform(0.1, 9, (2, 64)).astype(np.float32)
    found = Requantized(rows, "Q4_0", weights).read(0, 64)
    want, data = np.empty((64, 64), np.float32), np.empty((32, 36), np.uint8)
    shares = []
    for n in range(2):
        x = rows.read(32 * n, 32 * n + 32)
        codec("Q4_0").quantize(x, data, weights[n], False)
        codec("Q4_0").dequantize(data, want[32 * n : 32 * n + 32])
        w = weights[n].astype(np.float64)
        shares.append((((want[32 * n : 32 * n + 32] - x) ** 2 * w).sum(), (x.astype(np.float64) ** 2 * w).sum()))
    assert np.array_equal(found, want)
    for visits in ([1, 0], [0, 1], [5, 2]):
        lost = losses(rows, ["Q4_0"], weights, np.array(visits, np.float64))["Q4_0"].error
        error, total = (sum(v * s[k] for v, s in zip(visits, shares, strict=True)) for k in range(2))
        assert lost == pytest.approx(error / total, rel=1e-6)


def test_more_bits_lose_less_and_the_worst_row_loses_more_than_all_together() -> None:
    found = losses(_rows((64, 256)), ["Q3_K", "Q4_K", "Q6_K", "Q8_0"])
    errors = [each.error for each in found.values()]
    assert errors == sorted(errors, reverse=True)
    assert all(each.worst_row >= each.error for each in found.values())
    assert losses(_rows((64, 256)), ["Q3_K"])["Q3_K"] == found["Q3_K"]


def test_zeros_lose_nothing() -> None:
    assert losses(Constant(np.zeros((4, 64), np.float32)), ["Q4_0"])["Q4_0"].error == 0


def test_some_rows_of_every_expert_are_looked_at() -> None:
    found = sampled(1000 * 64, 1 << 14, 64)
    assert len(found) == 64 * 8
    assert set(found // 1000) == set(range(64))
    assert len(sampled(100, 64)) == 100
