"""Perplexity and KL divergence from panels of logits, against the plain formulas in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from streamconv.errors import BadInput
from streamconv.forward.divergence import Divergence, Scores, diverge, mean, percentile, running, summary
from streamconv.rows import Floats

N, VOCABULARY = 150, 70
RNG = np.random.default_rng(5)
BASE = (3 * RNG.standard_normal((N, VOCABULARY))).astype(np.float32)
OTHER = (BASE + 0.4 * RNG.standard_normal(BASE.shape) + 2).astype(np.float32)
TARGETS = RNG.integers(0, VOCABULARY, N).astype(np.int32)


def _panels(*models: Floats, step: int = 32) -> Iterator[tuple[slice, Sequence[Floats]]]:
    for at in range(0, VOCABULARY, step):
        rows = slice(at, min(at + step, VOCABULARY))
        yield rows, [m[:, rows].copy() for m in models]


def _log_p(logits: Floats) -> np.ndarray:
    z = logits.astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize("step", [1, 32, 70])
def test_divergence_is_that_of_the_plain_formula_however_the_vocabulary_is_cut(step: int) -> None:
    (found,) = diverge(_panels(BASE, OTHER, step=step), 1, TARGETS)
    p, q = _log_p(BASE), _log_p(OTHER)
    assert np.allclose(found.kld, (np.exp(p) * (p - q)).sum(axis=1), atol=2e-6)
    assert np.allclose(found.base, p[np.arange(N), TARGETS], atol=2e-6)
    assert np.allclose(found.log_p, q[np.arange(N), TARGETS], atol=2e-6)
    assert (found.same_top == (BASE.argmax(axis=1) == OTHER.argmax(axis=1))).all()


def test_a_model_has_no_divergence_from_itself_to_the_last_bit() -> None:
    found, other = diverge(_panels(BASE, BASE, OTHER), 2, TARGETS)
    assert not found.kld.any()
    assert other.kld.all()
    told = summary(found)
    assert {v for k, v in told["kl_divergence"].items()} == {0.0}
    assert told["token_probability"]["rms"] == 0
    assert told["token_probability"]["same_top_p"] == 100
    assert told["perplexity"]["mean_ln_ratio_uncertainty"] == 0
    assert told["perplexity"]["mean_ratio"] == 1


def test_tokens_that_are_impossible_to_the_reference_count_for_nothing() -> None:
    base, other = BASE.copy(), OTHER.copy()
    base[:, :40] = -np.inf  # whole panels, too
    other[:, :20] = -np.inf
    targets = np.full(N, 50, np.int32)
    (found,) = diverge(_panels(base, other), 1, targets)
    p, q = _log_p(base), _log_p(other)
    assert np.allclose(found.kld, (np.exp(p[:, 40:]) * (p[:, 40:] - q[:, 40:])).sum(axis=1), atol=2e-6)


def test_nan_logits_are_refused() -> None:
    scores = Scores(TARGETS)
    with np.errstate(invalid="ignore"):
        scores.add(slice(0, VOCABULARY), np.full_like(BASE, np.nan))
    with pytest.raises(BadInput, match="NaN"):
        _ = scores.log_p


def test_a_mean_has_the_uncertainty_of_llama_cpp() -> None:
    values = np.arange(20.0)
    found = mean(values)
    assert found.value == 9.5
    assert found.uncertainty == pytest.approx(math.sqrt(((values**2).mean() - 9.5**2) / 19))
    assert mean(values[:10]).uncertainty == 0
    assert mean(values[:0]) == (0, 0)


def test_percentiles_lie_between_the_nearest_values() -> None:
    assert percentile(np.array([0.0, 1, 2, 4]), 0.5) == 1.5
    assert percentile(np.array([0.0, 1, 2, 4]), 1.0) == 4
    assert percentile(np.array([0.0, 1, 2, 4]), 0.9) == pytest.approx(3.4)


def test_running_perplexity_is_that_of_all_chunks_so_far() -> None:
    log_p = np.log([[0.5, 0.5], [0.25, 0.25]])
    assert np.allclose(running(log_p), [2, math.sqrt(8)])


def test_a_model_that_finds_the_text_impossible_has_finite_statistics() -> None:
    base, own = np.full(N, -1.0), np.linspace(-2000.0, -900, N)
    for found in (Divergence(base, own, -own, own < 0), Divergence(own, base, -own, own < 0)):
        told = json.dumps(summary(found), allow_nan=False)
        assert "e+130" in told
    assert np.isfinite(running(own.reshape(2, -1))).all()


def test_statistics_follow_their_definitions() -> None:
    base, own = np.log(RNG.uniform(0.1, 1, N)), np.log(RNG.uniform(0.1, 1, N))
    kld, same = RNG.uniform(0, 1, N), np.arange(N) % 4 > 0
    told = summary(Divergence(base, own, kld, same))
    ppl, change = told["perplexity"], 100 * (np.exp(own) - np.exp(base))
    assert ppl["mean_ppl_q"] == pytest.approx(math.exp(-own.mean()))
    assert ppl["mean_ratio"] == pytest.approx(math.exp((base - own).mean()))
    assert ppl["mean_difference"] == pytest.approx(math.exp(-own.mean()) - math.exp(-base.mean()))
    assert ppl["mean_ln_ratio_uncertainty"] == pytest.approx((base - own).std() / math.sqrt(N - 1))
    assert ppl["correlation"] == pytest.approx(100 * np.corrcoef(own, base)[0, 1])
    assert told["kl_divergence"]["p99"] == pytest.approx(np.quantile(kld, 0.99))
    assert told["kl_divergence"]["median"] == pytest.approx(np.median(kld))
    assert told["token_probability"]["rms"] == pytest.approx(math.sqrt((change**2).mean()))
    assert told["token_probability"]["p0_1"] == pytest.approx(np.quantile(change, 0.001))
    share = same.mean()
    assert told["token_probability"]["same_top_p_uncertainty"] == pytest.approx(
        100 * math.sqrt(share * (1 - share) / (N - 1))
    )
    assert told["n"] == N
