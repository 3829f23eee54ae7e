"""State spaces (Mamba): each channel, or each head of channels, keeps a state that decays by what a token says.

Source: arXiv 2312.00752 and, for heads that decay as one, 2405.21060; ``mamba-base.cpp`` of llama.cpp.
"""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .blocks import Group
from .numeric import filtered, rms_norm, silu_, softplus

#: tokens whose sums are made together
_STEP = 64


def scan(group: Group, x: Floats) -> Floats:
    """What the layer gives for the normed ``x`` float32[n, size], before the residual."""
    both = group.product("ssm_in", x)
    y, z = _of_channels(group, both) if group.has("ssm_x.weight") else _of_heads(group, both)
    y *= silu_(np.ascontiguousarray(z))
    norm = group.vector("ssm_norm.weight")
    if norm is not None:
        recurrence = group.model.recurrence
        assert recurrence is not None
        y = rms_norm(
            y.reshape(len(x), recurrence.n_keys, -1), norm.reshape(recurrence.n_keys, -1), group.model.epsilon
        ).reshape(y.shape)
    return group.product("ssm_out", y)


def convolve(group: Group, x: Floats) -> Floats:
    """What a short convolution (LFM2) gives for the normed ``x``: gated before and after."""
    before, after, value = np.split(group.product("shortconv.in_proj", x), 3, axis=1)
    y = filtered(before * value, group.model.needed(group.layer.name("shortconv.conv.weight")), None, group.n_ctx)
    y *= after
    return group.product("shortconv.out_proj", y)


def _convolved(group: Group, x: Floats) -> Floats:
    weight = group.model.needed(group.layer.name("ssm_conv1d.weight"))
    return silu_(filtered(np.ascontiguousarray(x), weight, group.vector("ssm_conv1d.bias"), group.n_ctx))


def _of_channels(group: Group, both: Floats) -> tuple[Floats, Floats]:
    """Mamba: every number of every channel's state decays by itself."""
    model, layer = group.model, group.layer
    decay = model.needed(layer.name("ssm_a"))
    n_channels, n_states = decay.shape
    x = _convolved(group, both[:, :n_channels])
    parts = group.product("ssm_x", x)
    cuts = (parts.shape[1] - 2 * n_states, parts.shape[1] - n_states)
    rate, taken, asked = (np.ascontiguousarray(part) for part in np.split(parts, cuts, axis=1))
    if group.has("ssm_dt_norm.weight") or model.normed_rates:
        named = (("ssm_dt_norm", rate), ("ssm_b_norm", taken), ("ssm_c_norm", asked))
        rate, taken, asked = (rms_norm(part, group.vector(f"{name}.weight"), model.epsilon) for name, part in named)
    rate = softplus(group.product("ssm_dt", rate))
    given, y = rate * x, np.empty_like(x)
    for start in range(0, len(x), group.n_ctx):
        state = np.zeros_like(decay)
        for at in range(start, start + group.n_ctx):
            state *= np.exp(rate[at, :, None] * decay)
            state += given[at, :, None] * taken[at]
            np.matmul(state, asked[at], out=y[at])
    y += x * model.needed(layer.name("ssm_d")).reshape(-1)
    return y, both[:, n_channels:]


def _of_heads(group: Group, both: Floats) -> tuple[Floats, Floats]:
    """Mamba 2: the states of a head decay as one, and neighbouring heads share what is taken and asked."""
    model, layer, recurrence = group.model, group.layer, group.model.recurrence
    assert recurrence is not None
    n, n_heads, n_groups = len(both), recurrence.n_values, recurrence.n_keys
    n_inner, n_states = n_heads * recurrence.v_size, n_groups * recurrence.k_size
    z, mixed, rate = np.split(both, (n_inner, 2 * n_inner + 2 * n_states), axis=1)
    x, taken, asked = np.split(_convolved(group, mixed), (n_inner, n_inner + n_states), axis=1)
    rate = softplus(rate + model.needed(layer.name("ssm_dt.bias")).reshape(-1))
    x, taken, asked = x.reshape(n, n_heads, -1), taken.reshape(n, n_groups, -1), asked.reshape(n, n_groups, -1)
    decay = rate * model.needed(layer.name("ssm_a")).reshape(-1)
    y = decaying(asked, taken, x * rate[..., None], decay, group.n_ctx)
    y += x * model.needed(layer.name("ssm_d")).reshape(-1, 1)
    return y.reshape(n, -1), z


def decaying(q: Floats, k: Floats, v: Floats, decay: Floats, n_ctx: int) -> Floats:
    """The state S of each head decays, takes k v, and is asked with q, token after token: float32[n, heads, size of v].

    q, k : float32[n, groups, size], each for neighbouring heads; v : float32[n, heads, size]; decay : logarithms, [n, heads].
    Within a step of tokens this is a product of matrices.
    """
    n, n_heads, v_size = v.shape
    n_groups, each = k.shape[1], n_heads // k.shape[1]
    y = np.empty(v.shape, np.float32)
    for chunk in range(0, n, n_ctx):
        state = np.zeros((n_groups, each, k.shape[2], v_size), np.float32)
        for start in range(chunk, chunk + n_ctx, _STEP):
            at = slice(start, min(start + _STEP, chunk + n_ctx))
            asked, taken = (part[at].transpose(1, 0, 2)[:, None] for part in (q, k))
            given = v[at].reshape(-1, n_groups, each, v_size).transpose(1, 2, 0, 3)
            since = np.cumsum(decay[at].T.reshape(n_groups, each, -1, 1), axis=2, dtype=np.float32)
            later = np.tri(since.shape[2], dtype=bool)
            kept = np.exp(np.where(later, since - since.swapaxes(2, 3), np.float32(-np.inf)))
            made = np.matmul(np.matmul(asked, taken.swapaxes(2, 3)) * kept, given)
            made += np.exp(since) * np.matmul(asked, state)
            last = since[:, :, -1:]
            state = state * np.exp(last) + np.matmul(taken.swapaxes(2, 3), given * np.exp(last - since))
            y[at] = made.transpose(2, 0, 1, 3).reshape(-1, n_heads, v_size)
    return y
