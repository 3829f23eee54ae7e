"""The gated delta rule (Qwen3-Next, Qwen 3.5): each head keeps a matrix that forgets, and is corrected by every token.

Source: arXiv 2412.06464; ``qwen3next.cpp`` and ``qwen35.cpp`` of llama.cpp.
"""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .blocks import Group
from .numeric import l2_norm, rms_norm, sigmoid, silu_, softplus


def remember(group: Group, x: Floats) -> Floats:
    """What the layer gives for the normed ``x`` float32[n, size], before the residual."""
    delta = group.model.delta
    assert delta is not None
    n, n_keys, n_values = len(x), delta.n_keys, delta.n_values
    mixed, z = _mixed(group, x)
    beta, alpha = _rates(group, x)
    decay = softplus(alpha + group.model.needed(group.layer.name("ssm_dt.bias")).reshape(-1))
    decay *= group.model.needed(group.layer.name("ssm_a")).reshape(-1)
    mixed = silu_(_filtered(mixed, group.model.needed(group.layer.name("ssm_conv1d.weight")), group.n_ctx))
    cuts = (n_keys * delta.k_size, 2 * n_keys * delta.k_size)
    q, k, v = np.split(mixed, cuts, axis=1)
    q, k = (l2_norm(part.reshape(n, n_keys, delta.k_size), group.model.epsilon) for part in (q, k))
    each = n_values // n_keys
    tiled = group.model.computes.tiled_heads
    q, k = (np.tile(part, (1, each, 1)) if tiled else np.repeat(part, each, axis=1) for part in (q, k))
    q *= np.float32(delta.k_size**-0.5)
    y = _recurrent(q, k, v.reshape(n, n_values, delta.v_size), decay, sigmoid(beta), group.n_ctx)
    y = rms_norm(y, group.vector("ssm_norm.weight"), group.model.epsilon)
    y *= silu_(z.reshape(y.shape))
    return group.product("ssm_out", y.reshape(n, -1))


def _mixed(group: Group, x: Floats) -> tuple[Floats, Floats]:
    """Queries, keys and values side by side, and what the output is gated with."""
    return group.product("attn_qkv", x), group.product("attn_gate", x)


def _rates(group: Group, x: Floats) -> tuple[Floats, Floats]:
    """How much a token corrects, and how much is forgotten: float32[n, value heads] each, raw."""
    delta = group.model.delta
    assert delta is not None
    if not group.has("ssm_ba.weight"):
        return group.product("ssm_beta", x), group.product("ssm_alpha", x)
    both = group.product("ssm_ba", x).reshape(len(x), delta.n_keys, 2, -1)
    return both[:, :, 0].reshape(len(x), -1), both[:, :, 1].reshape(len(x), -1)


def _filtered(x: Floats, kernel: Floats, n_ctx: int) -> Floats:
    """A causal filter over the tokens of each chunk; ``kernel`` float32[channels, taps], the last for the token itself."""
    kernel = kernel.reshape(x.shape[1], -1)
    taps = kernel.shape[1]
    chunks = x.reshape(-1, n_ctx, x.shape[1])
    y = chunks * kernel[:, -1]
    for back in range(1, min(taps, n_ctx)):
        y[:, back:] += chunks[:, :-back] * kernel[:, taps - 1 - back]
    return y.reshape(x.shape)


def _recurrent(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, n_ctx: int) -> Floats:
    """Token after token: the state S forgets, is corrected towards S k = v, and is asked with q; all chunks at once."""
    n, n_heads, v_size = v.shape
    q, k, v = (part.reshape(-1, n_ctx, *part.shape[1:]) for part in (q, k, v))
    kept, rate = np.exp(decay).reshape(-1, n_ctx, n_heads, 1), rate.reshape(-1, n_ctx, n_heads, 1)
    state = np.zeros((len(v), n_heads, v_size, k.shape[-1]), np.float32)
    y = np.empty(v.shape, np.float32)
    for t in range(n_ctx):
        state *= kept[:, t, :, :, None]
        wrong = (v[:, t] - np.matmul(state, k[:, t, :, :, None])[..., 0]) * rate[:, t]
        state += wrong[..., None] * k[:, t, :, None, :]
        y[:, t] = np.matmul(state, q[:, t, :, :, None])[..., 0]
    return y.reshape(n, n_heads, v_size)
