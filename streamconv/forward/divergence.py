"""What two models predict for the same positions: perplexity, KL divergence, probabilities of the right token.

Names, uncertainties and percentiles are those of llama-perplexity. Unlike there nothing is stored as 16-bit numbers in between, so
a model has a divergence of exactly 0 to itself. A few numbers a position are kept, however large the vocabulary is.

With logits z, M their maximum and S = Σ exp(z − M), ln p(t) = z_t − M − ln S; and for those of two models

    KLD = Σ exp(z_p − M_p)(z_p − z_q) / S_p + (M_q + ln S_q) − (M_p + ln S_p)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Floats

Doubles = NDArray[np.float64]
#: fewer values than these have no uncertainty that would mean anything
_FEW = 10


class Softmax(NamedTuple):
    """What is kept of the logits of some positions.

    Attributes
    ----------
    log_sum : float64[n] ln Σ exp(z)
    log_p : float64[n] ln p of the right token
    top : int[n] the most probable token
    """

    log_sum: Doubles
    log_p: Doubles
    top: NDArray[np.intp]


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


def softmax(logits: Floats, targets: NDArray[np.int32]) -> Softmax:
    """What to keep of ``logits``, float32[n, vocabulary], whose right tokens are ``targets``, int32[n].

    Raises
    ------
    BadInput : NaN or Inf is among them
    """
    top = logits.argmax(axis=1)
    rows = np.arange(len(logits))
    largest = logits[rows, top]
    total = np.exp(logits - largest[:, None]).sum(axis=1, dtype=np.float64)
    if not (np.isfinite(largest).all() and np.isfinite(total).all()):
        raise BadInput("the model's logits are NaN or Inf", "Look for NaN and Inf in its weights: streamconv check.")
    log_sum = largest + np.log(total)
    return Softmax(log_sum, logits[rows, targets] - log_sum, top)


def diverge(base: Floats, base_softmax: Softmax, logits: Floats, targets: NDArray[np.int32]) -> Divergence:
    """Compare ``logits`` of a model with the reference's, both float32[n, vocabulary]; ``base_softmax`` is of the latter."""
    own = softmax(logits, targets)
    weights = np.exp(base - base_softmax.log_sum[:, None].astype(np.float32))
    difference = base - logits
    # A token that the reference excludes with -Inf has no part in the sum, whatever the model says of it.
    weighted = np.multiply(weights, difference, out=difference, where=weights > 0)
    weighted[weights == 0] = 0
    kld = weighted.sum(axis=1, dtype=np.float64) / weights.sum(axis=1, dtype=np.float64)
    kld += own.log_sum - base_softmax.log_sum
    return Divergence(base_softmax.log_p, own.log_p, kld, own.top == base_softmax.top)


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
    value = math.exp(found.value)
    return Estimate(value, value * found.uncertainty)


def running(log_p: Doubles) -> Doubles:
    """The perplexity after every chunk; ``log_p`` is float64[n_chunks, n_scored]."""
    counts = np.arange(1, len(log_p) + 1) * log_p.shape[1]
    return np.asarray(np.exp(np.cumsum(-log_p.sum(axis=1)) / counts))


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
    times = math.exp(ratio.value)
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
