"""What two models predict for the same positions: perplexity, KL divergence, probabilities of the right token.

Names, uncertainties and percentiles are those of llama-perplexity. Unlike there nothing is stored as 16-bit numbers in between, so
a model has a divergence of exactly 0 to itself. A few numbers a position are kept, however large the vocabulary is.

With logits z, M their maximum and S = Σ exp(z − M), ln p(t) = z_t − M − ln S; and for those of two models

    KLD = Σ exp(z_p − M_p)(z_p − z_q) / S_p + (M_q + ln S_q) − (M_p + ln S_p)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Floats

Doubles = NDArray[np.float64]
#: fewer values than these have no uncertainty that would mean anything
_FEW = 10
#: below every logit, but not so low that there is no difference to it
_LEAST = np.finfo(np.float32).min
_MOST = 300.0


class Scores:
    """What some positions say of the right token, from logits that come some rows of the vocabulary at a time.

    Parameters
    ----------
    targets : int32[n] the right tokens
    """

    def __init__(self, targets: NDArray[np.int32]) -> None:
        n = len(targets)
        self._targets = targets
        self._largest = np.full(n, _LEAST, np.float32)
        self._total = np.zeros(n)
        self._right = np.zeros(n)
        self.top = np.zeros(n, np.intp)

    def add(self, rows: slice, logits: Floats) -> tuple[Floats, Doubles]:
        """Take in ``logits``, float32[n, rows].

        Returns exp(logits - M) with the largest logit M so far, and what sums over earlier rows are to be multiplied by.
        """
        best = logits.argmax(axis=1)
        at = np.arange(len(logits))
        found = logits[at, best]
        self.top = np.where(found > self._largest, best + rows.start, self.top)
        largest = np.maximum(self._largest, found)
        scale = np.exp((self._largest - largest).astype(np.float64))
        shares = np.exp(logits - largest[:, None])
        self._total = self._total * scale + shares.sum(axis=1, dtype=np.float64)
        self._largest = largest
        here = np.flatnonzero((self._targets >= rows.start) & (self._targets < rows.stop))
        self._right[here] = logits[here, self._targets[here] - rows.start]
        return shares, scale

    @property
    def total(self) -> Doubles:
        """float64[n] S."""
        return self._total

    @property
    def log_sum(self) -> Doubles:
        """float64[n] M + ln S."""
        return np.asarray(self._largest + np.log(self._total))

    @property
    def log_p(self) -> Doubles:
        """float64[n] ln p of the right token.

        Raises
        ------
        BadInput : NaN or Inf is among the logits
        """
        log_sum = self.log_sum
        if not np.isfinite(log_sum).all():
            raise BadInput(
                "the logits of the model are NaN or Inf", "Look for NaN and Inf in its weights: streamconv check."
            )
        return self._right - log_sum


class Divergence(NamedTuple):
    """Two models at some positions.

    Attributes
    ----------
    base, log_p : float64[n] ln p of the right token, by the reference and by the model
    kld : float64[n] KL divergence of the model's prediction from the reference's
    same_top : bool[n] whether both have the same most probable token
    """

    base: Doubles
    log_p: Doubles
    kld: Doubles
    same_top: NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[Divergence]) -> Divergence:
        """All positions of ``parts``, in their order."""
        return cls(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def diverge(
    panels: Iterable[tuple[slice, Sequence[Floats]]], n_models: int, targets: NDArray[np.int32]
) -> list[Divergence]:
    """Compare models with a reference at some positions.

    Parameters
    ----------
    panels : rows of the vocabulary, and the logits float32[n, rows] of the reference and of each model, which are overwritten
    targets : int32[n] the right tokens
    """
    base, own = Scores(targets), [Scores(targets) for _ in range(n_models)]
    sums = [np.zeros(len(targets)) for _ in own]
    for rows, (reference, *others) in panels:
        shares, scale = base.add(rows, reference)
        for number, (scores, logits) in enumerate(zip(own, others, strict=True)):
            scores.add(rows, logits)
            sums[number] = sums[number] * scale + _weighted(shares, reference, logits)
    log_p = base.log_p
    return [
        Divergence(log_p, s.log_p, total / base.total + (s.log_sum - base.log_sum), s.top == base.top)
        for s, total in zip(own, sums, strict=True)
    ]


def _weighted(shares: Floats, base: Floats, own: Floats) -> Doubles:
    """Sums of shares times differences; what has no share counts for nothing, be the difference infinite or none."""
    with np.errstate(invalid="ignore"):
        found = np.multiply(shares, np.subtract(base, own, out=own), out=own)
    found[shares == 0] = 0
    return np.asarray(found.sum(axis=1, dtype=np.float64))


class Estimate(NamedTuple):
    """A mean and its uncertainty, one standard deviation."""

    value: float
    uncertainty: float

    def times(self, factor: float) -> Estimate:
        """Both times ``factor``."""
        return Estimate(self.value * factor, self.uncertainty * factor)


def mean(values: Doubles) -> Estimate:
    """The mean of ``values``, float64[n]; without uncertainty where there are few."""
    n = len(values)
    if not n:
        return Estimate(0.0, 0.0)
    value = float(values.sum() / n)
    variance = float((values * values).sum() / n) - value * value
    return Estimate(value, math.sqrt(variance / (n - 1)) if variance > 0 and n > _FEW else 0.0)


def perplexity(log_p: Doubles) -> Estimate:
    """exp of the mean of −ln p."""
    found = mean(-log_p)
    value = _exp(found.value)
    return Estimate(value, value * found.uncertainty)


def _exp(x: float) -> float:
    """exp(x), or 2e130 where that is more, as of broken models: squares stay finite, and JSON has no infinity."""
    return math.exp(min(x, _MOST))


def running(log_p: Doubles) -> Doubles:
    """The perplexity after every chunk; ``log_p`` is float64[n_chunks, n_scored]."""
    counts = np.arange(1, len(log_p) + 1) * log_p.shape[1]
    return np.array([_exp(x) for x in np.cumsum(-log_p.sum(axis=1)) / counts])


def percentile(ordered: Doubles, fraction: float) -> float:
    """Linear between the two nearest of ``ordered``."""
    at = fraction * (len(ordered) - 1)
    below = int(at)
    share = at - below
    return float((1 - share) * ordered[below] + share * ordered[min(below + 1, len(ordered) - 1)])


def _percentiles(values: Doubles, fractions: Sequence[float]) -> dict[str, float]:
    """Under the names that JSON has for them, largest first."""
    ordered = np.sort(values)
    named = {1.0: "maximum", 0.5: "median", 0.0: "minimum"}
    keys = [named.get(f, f"p{100 * f:g}".replace(".", "_")) for f in fractions]
    return {key: percentile(ordered, f) for key, f in zip(keys, fractions, strict=True)}


#: of the divergence; of the probabilities there are two more
_FRACTIONS = (1.0, 0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001, 0.0)
_MORE_FRACTIONS = (1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0)


def summary(found: Divergence) -> dict[str, Any]:
    """All statistics, JSON-able: ``perplexity``, ``kl_divergence`` and, in per cent, ``token_probability``; ``n`` positions."""
    n = len(found.kld)
    return {
        "n": n,
        "perplexity": _perplexities(-found.log_p, -found.base),
        "kl_divergence": {**_named("mean", mean(found.kld)), **_percentiles(found.kld, _FRACTIONS)},
        "token_probability": _probabilities(found),
    }


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_uncertainty": estimate.uncertainty}


def _perplexities(own: Doubles, base: Doubles) -> dict[str, float]:
    """The two perplexities and how they differ; ``own`` and ``base`` are −ln p."""
    n = len(own)
    q, b = mean(own), mean(base)
    covariance = float((own * base).sum() / n - q.value * b.value) / (n - 1) if n >= _FEW else 0.0
    ppl_q, ppl_b = perplexity(-own), perplexity(-base)
    spread = q.uncertainty * b.uncertainty
    ratio = Estimate(q.value - b.value, _root(q.uncertainty**2 + b.uncertainty**2 - 2 * covariance))
    between = ppl_q.uncertainty**2 + ppl_b.uncertainty**2 - 2 * ppl_q.value * ppl_b.value * covariance
    difference = Estimate(ppl_q.value - ppl_b.value, _root(between))
    if np.array_equal(own, base):  # what rounding leaves of differences of equal numbers
        ratio, difference = Estimate(0.0, 0.0), Estimate(0.0, 0.0)
    times = _exp(ratio.value)
    return {
        **_named("mean_ppl_q", ppl_q),
        **_named("mean_ppl_base", ppl_b),
        "correlation": 100 * covariance / spread if spread else 100.0,
        **_named("mean_ln_ratio", ratio),
        **_named("mean_ratio", Estimate(times, times * ratio.uncertainty)),
        **_named("mean_difference", difference),
    }


def _root(square: float) -> float:
    return math.sqrt(max(0.0, square))


def _probabilities(found: Divergence) -> dict[str, float]:
    """How much more probable the right token is to the model than to the reference, in per cent."""
    n = len(found.kld)
    change = np.exp(found.log_p) - np.exp(found.base)
    square = mean(change**2)
    rms = math.sqrt(square.value)
    same = float(found.same_top.mean())
    return {
        **_named("mean", mean(change).times(100)),
        **{key: 100 * value for key, value in _percentiles(change, _MORE_FRACTIONS).items()},
        **_named("rms", Estimate(rms, 0.5 / rms * square.uncertainty if rms else 0.0).times(100)),
        **_named("same_top_p", Estimate(same, _root(same * (1 - same) / max(1, n - 1))).times(100)),
    }
