"""Functions of float32 arrays, a row a token; those that end in ``_`` change their argument and return it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..rows import Floats


def rms_norm(x: Floats, weight: Floats | None, epsilon: float) -> Floats:
    """``x`` divided by the root of the mean of its squares along the last axis, times ``weight``."""
    mean = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
    y: Floats = x * (np.float32(1) / np.sqrt(mean + np.float32(epsilon)))
    if weight is not None:
        y *= weight
    return y


def layer_norm(x: Floats, weight: Floats | None, epsilon: float) -> Floats:
    """``x`` less its mean, divided by its deviation along the last axis, times ``weight``."""
    centred = x - x.mean(axis=-1, keepdims=True, dtype=np.float32)
    return rms_norm(centred, weight, epsilon)


def l2_norm(x: Floats, epsilon: float) -> Floats:
    """``x`` divided by its length along the last axis, which is taken for ``epsilon`` at least."""
    length = np.sqrt(np.einsum("...i,...i->...", x, x))[..., None]
    y: Floats = x / np.maximum(length, np.float32(epsilon))
    return y


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, and 1 over it is 0
        y: Floats = np.float32(1) / (np.float32(1) + np.exp(-x))
    return y


def softplus(x: Floats) -> Floats:
    """ln(1 + exp x)."""
    y: Floats = np.logaddexp(x, np.float32(0))
    return y


def silu_(x: Floats) -> Floats:
    """``x`` times its logistic function."""
    x *= sigmoid(x)
    return x


def gelu_(x: Floats) -> Floats:
    """GELU by tanh."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += np.float32(1)
    inner *= x
    inner *= np.float32(0.7978845608028654)
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= x
    np.multiply(inner, np.float32(0.5), out=x)
    return x


def gelu_erf_(x: Floats) -> Floats:
    """GELU by the error function, from a rational approximation that is off by 2e-7 at most (Abramowitz and Stegun 7.1.26)."""
    z = np.abs(x) * np.float32(0.7071067811865476)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    tail = t * np.float32(1.061405429) - np.float32(1.453152027)
    for factor in (1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + np.float32(factor)
    erf = np.copysign(np.float32(1) - tail * t * np.exp(-z * z), x)
    x *= (erf + np.float32(1)) * np.float32(0.5)
    return x


def relu2_(x: Floats) -> Floats:
    """The square of what is positive."""
    np.maximum(x, np.float32(0), out=x)
    x *= x
    return x


def filtered(x: Floats, kernel: Floats, bias: Floats | None, n_ctx: int) -> Floats:
    """A causal filter over the tokens of each chunk; ``kernel`` float32[channels, taps], the last for the token itself."""
    kernel = kernel.reshape(x.shape[1], -1)
    taps = kernel.shape[1]
    chunks = x.reshape(-1, n_ctx, x.shape[1])
    y = chunks * kernel[:, -1]
    for back in range(1, min(taps, n_ctx)):
        y[:, back:] += chunks[:, :-back] * kernel[:, taps - 1 - back]
    if bias is not None:
        y += bias.reshape(-1)
    return y.reshape(x.shape)


def xielu_(x: Floats, low: float, high: float, beta: float, epsilon: float) -> Floats:
    """xIELU (arXiv 2411.13010): a parabola of ``high`` above 0, an exponential of ``low`` below, and a line of ``beta``."""
    below = (np.expm1(np.minimum(x, np.float32(epsilon))) - x) * np.float32(low)
    bent = np.where(x > 0, x * x * np.float32(high), below)
    x *= np.float32(beta)
    x += bent
    return x


ACTIVATIONS: dict[str, Callable[..., Floats]] = {
    "silu": silu_,
    "gelu": gelu_,
    "gelu_erf": gelu_erf_,
    "relu2": relu2_,
    "xielu": xielu_,
}


#: numbers that several passes go over at once: they stay in the cache
_CACHED = 1 << 16


def gated_(activation: str, gate: Floats, up: Floats, limit: float = 0.0) -> Floats:
    """The activation of ``gate`` times ``up``, both float32[n, cols], in ``gate``; neither is above ``limit``, if that is not 0."""
    step = max(1, _CACHED // gate.shape[1])
    for start in range(0, len(gate), step):
        g, u = gate[start : start + step], up[start : start + step]
        if activation == "clamped":
            np.minimum(g, np.float32(7), out=g)
            g *= sigmoid(np.float32(1.702) * g)
            g *= np.clip(u, np.float32(-7), np.float32(7)) + np.float32(1)
        else:
            ACTIVATIONS[activation](g)
            if limit:
                np.minimum(g, np.float32(limit), out=g)
                u = np.clip(u, np.float32(-limit), np.float32(limit))
            g *= u
    return gate


def capped_(x: Floats, cap: float) -> Floats:
    """``cap`` times the hyperbolic tangent of ``x`` over ``cap``; unchanged for a cap of 0."""
    if cap:
        x *= np.float32(1 / cap)
        np.tanh(x, out=x)
        x *= np.float32(cap)
    return x


def softmax_(x: Floats, sinks: Floats | None = None) -> Floats:
    """Shares along the last axis; ``sinks`` (last axis 1) take part in the sum only."""
    top = x.max(axis=-1, keepdims=True)
    if sinks is not None:
        top = np.maximum(top, sinks)
    x -= top
    np.exp(x, out=x)
    total = x.sum(axis=-1, keepdims=True, dtype=np.float32)
    if sinks is not None:
        total += np.exp(sinks - top)
    x /= total
    return x
