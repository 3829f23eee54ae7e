"""The gated delta rule (Qwen3-Next, Qwen 3.5): each head keeps a matrix that forgets, and is corrected by every token.

Source: arXiv 2412.06464 and, for steps of several tokens, 2406.06484; ``qwen3next.cpp`` and ``qwen35.cpp`` of llama.cpp.
"""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .blocks import Group
from .numeric import filtered, l2_norm, rms_norm, sigmoid, silu_, softplus

#: tokens whose corrections are solved for together
_STEP = 64


def remember(group: Group, x: Floats) -> Floats:
    """What the layer gives for the normed ``x`` float32[n, size], before the residual."""
    sizes = group.model.recurrence
    assert sizes is not None
    n, n_keys, n_values = len(x), sizes.n_keys, sizes.n_values
    mixed, z = _mixed(group, x)
    beta, alpha = _rates(group, x)
    decay = softplus(alpha + group.model.needed(group.layer.name("ssm_dt.bias")).reshape(-1))
    decay *= group.model.needed(group.layer.name("ssm_a")).reshape(-1)
    mixed = silu_(filtered(mixed, group.model.needed(group.layer.name("ssm_conv1d.weight")), None, group.n_ctx))
    cuts = (n_keys * sizes.k_size, 2 * n_keys * sizes.k_size)
    q, k, v = np.split(mixed, cuts, axis=1)
    q, k = (l2_norm(part.reshape(n, n_keys, sizes.k_size), group.model.epsilon) for part in (q, k))
    each = n_values // n_keys
    tiled = group.model.computes.tiled_heads
    q, k = (np.tile(part, (1, each, 1)) if tiled else np.repeat(part, each, axis=1) for part in (q, k))
    q *= np.float32(sizes.k_size**-0.5)
    y = _recurrent(q, k, v.reshape(n, n_values, sizes.v_size), decay, sigmoid(beta), group.n_ctx)
    y = rms_norm(y, group.vector("ssm_norm.weight"), group.model.epsilon)
    y *= silu_(z.reshape(y.shape))
    return group.product("ssm_out", y.reshape(n, -1))


def _mixed(group: Group, x: Floats) -> tuple[Floats, Floats]:
    """Queries, keys and values side by side, and what the output is gated with."""
    if not group.has("ssm_in.weight"):
        return group.product("attn_qkv", x), group.product("attn_gate", x)
    sizes = group.model.recurrence
    assert sizes is not None
    each = sizes.n_values // sizes.n_keys * sizes.v_size
    both = group.product("ssm_in", x).reshape(len(x), sizes.n_keys, -1)
    cuts = (sizes.k_size, 2 * sizes.k_size, 2 * sizes.k_size + each)
    *mixed, z = (part.reshape(len(x), -1) for part in np.split(both, cuts, axis=2))
    return np.concatenate(mixed, axis=1), z


def _rates(group: Group, x: Floats) -> tuple[Floats, Floats]:
    """How much a token corrects, and how much is forgotten: float32[n, value heads] each, raw."""
    sizes = group.model.recurrence
    assert sizes is not None
    if not group.has("ssm_ba.weight"):
        return group.product("ssm_beta", x), group.product("ssm_alpha", x)
    both = group.product("ssm_ba", x).reshape(len(x), sizes.n_keys, 2, -1)
    return both[:, :, 0].reshape(len(x), -1), both[:, :, 1].reshape(len(x), -1)


def _recurrent(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, n_ctx: int) -> Floats:
    """The state S of each head forgets, is corrected towards S k = v by ``rate``, and is asked with q, token after token.

    q, k, v : float32[n, heads, size]; ``decay`` (logarithms) and ``rate`` float32[n, heads]. Gives float32[n, heads, size of v].
    """
    y = np.empty(v.shape, np.float32)
    for start in range(0, len(v), n_ctx):
        at = slice(start, start + n_ctx)
        y[at] = _chunk(*(_by_steps(part[at]) for part in (q, k, v, decay[..., None], rate[..., None])))[:n_ctx]
    return y


def _by_steps(x: Floats) -> Floats:
    """Tokens of float32[n, heads, size] in steps, with zeros behind the last: float32[heads, steps, STEP, size]."""
    n, n_heads, size = x.shape
    n_steps = -(-n // _STEP)
    padded = np.zeros((n_steps * _STEP, n_heads, size), np.float32)
    padded[:n] = x
    steps: Floats = padded.reshape(n_steps, _STEP, n_heads, size).transpose(2, 0, 1, 3)
    return steps


def _chunk(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats) -> Floats:
    """The same of one chunk, a step of tokens at a time: within a step all corrections follow from a triangular system."""
    n_heads, n_steps, _, v_size = v.shape
    since = np.cumsum(decay, axis=2, dtype=np.float32)  # what is forgotten since the step began
    between = since - since.swapaxes(2, 3)
    lower = np.tril(np.ones((_STEP, _STEP), bool))
    kept = np.exp(np.where(lower, between, np.float32(-np.inf)))
    k_rated = k * rate
    system = np.tril(np.matmul(k_rated, k.swapaxes(2, 3)) * kept, -1)
    solved = np.linalg.inv(np.eye(_STEP, dtype=np.float32) + system)
    values, keys = np.matmul(solved, v * rate), np.matmul(solved, k_rated * np.exp(since))
    scores = np.matmul(q, k.swapaxes(2, 3)) * kept
    q_kept, last = q * np.exp(since), since[:, :, -1:]
    k_kept, last = k * np.exp(last - since), np.exp(last)
    state = np.zeros((n_heads, k.shape[-1], v_size), np.float32)
    y = np.empty(v.shape, np.float32)
    for step in range(n_steps):
        new = values[:, step] - np.matmul(keys[:, step], state)
        y[:, step] = np.matmul(q_kept[:, step], state) + np.matmul(scores[:, step], new)
        state = state * last[:, step] + np.matmul(k_kept[:, step].swapaxes(1, 2), new)
    by_token: Floats = y.transpose(1, 2, 0, 3).reshape(-1, n_heads, v_size)
    return by_token
