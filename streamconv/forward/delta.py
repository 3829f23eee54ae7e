"""The gated delta rule (Qwen3-Next, Qwen 3.5, Kimi Linear): each head keeps a matrix that forgets, and every token corrects it.

Source: arXiv 2412.06464, for steps of several tokens 2406.06484, for rows that forget by themselves 2510.26692; ``qwen3next.cpp``,
``qwen35.cpp`` and ``kimi-linear.cpp`` of llama.cpp.
"""

from __future__ import annotations

import numpy as np

from ..rows import Floats
from .blocks import Group
from .numeric import filtered, l2_norm, rms_norm, sigmoid, silu_, softplus

#: tokens whose corrections are solved for together; fewer where each row of the matrix forgets by itself
_STEP, _SHORT_STEP = 64, 16


def remember(group: Group, x: Floats) -> Floats:
    """What the layer gives for the normed ``x`` float32[n, size], before the residual."""
    model, sizes = group.model, group.model.recurrence
    assert sizes is not None
    n, by_row = len(x), group.has("ssm_f_a.weight")
    q, k, v, gate = _of_kimi(group, x) if by_row else _of_qwen(group, x)
    rate, alpha = _rates(group, x)
    alpha += model.needed(group.layer.name("ssm_dt.bias")).reshape(-1)
    factors = model.needed(group.layer.name("ssm_a")).reshape(-1, 1)
    alpha = alpha.reshape(n, sizes.n_values, -1)
    least = np.float32(model.least_decay)
    decay = least * sigmoid(alpha * factors) if least else softplus(alpha) * factors
    q, k = (l2_norm(part.reshape(n, sizes.n_keys, sizes.k_size), model.epsilon) for part in (q, k))
    each = sizes.n_values // sizes.n_keys
    tiled = model.computes.tiled_heads
    q, k = (np.tile(part, (1, each, 1)) if tiled else np.repeat(part, each, axis=1) for part in (q, k))
    q *= np.float32(sizes.k_size**-0.5)
    y = _recurrent(q, k, v.reshape(n, sizes.n_values, sizes.v_size), decay, sigmoid(rate)[..., None], group.n_ctx)
    y = rms_norm(y, group.vector("ssm_norm.weight"), model.epsilon)
    y *= sigmoid(gate.reshape(y.shape)) if by_row else silu_(gate.reshape(y.shape))
    return group.product("attn_output" if by_row else "ssm_out", y.reshape(n, -1))


def _of_qwen(group: Group, x: Floats) -> tuple[Floats, ...]:
    """Queries, keys, values, and what the output is gated with."""
    sizes = group.model.recurrence
    assert sizes is not None
    mixed, z = _mixed(group, x)
    mixed = silu_(filtered(mixed, group.model.needed(group.layer.name("ssm_conv1d.weight")), None, group.n_ctx))
    return *np.split(mixed, (sizes.n_keys * sizes.k_size, 2 * sizes.n_keys * sizes.k_size), axis=1), z


def _of_kimi(group: Group, x: Floats) -> tuple[Floats, ...]:
    """The same, where each has a filter of its own."""
    parts = np.split(group.product("attn_qkv", x), 3, axis=1) if group.has("attn_qkv.weight") else [
        group.product(f"attn_{part}", x) for part in "qkv"
    ]  # fmt: skip
    kernels = (group.model.needed(group.layer.name(f"ssm_conv1d_{part}.weight")) for part in "qkv")
    q, k, v = (
        silu_(filtered(np.ascontiguousarray(part), kernel, None, group.n_ctx))
        for part, kernel in zip(parts, kernels, strict=True)
    )
    return q, k, v, _narrowed(group, "ssm_g", x)


def _narrowed(group: Group, name: str, x: Floats) -> Floats:
    """``x`` times one matrix, or times two that are narrow where they meet."""
    y = group.product(f"{name}_a", x)
    return group.product(f"{name}_b", y) if group.has(f"{name}_b.weight") else y


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
    """How much a token corrects, and how much is forgotten, by heads or by their rows: float32[n, …] each, raw."""
    sizes = group.model.recurrence
    assert sizes is not None
    if group.has("ssm_f_a.weight"):
        return group.product("ssm_beta", x), _narrowed(group, "ssm_f", x)
    if not group.has("ssm_ba.weight"):
        return group.product("ssm_beta", x), group.product("ssm_alpha", x)
    both = group.product("ssm_ba", x).reshape(len(x), sizes.n_keys, 2, -1)
    return both[:, :, 0].reshape(len(x), -1), both[:, :, 1].reshape(len(x), -1)


def _recurrent(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, n_ctx: int) -> Floats:
    """The state S of each head forgets, is corrected towards S k = v by ``rate``, and is asked with q, token after token.

    q, k, v : float32[n, heads, size]; ``rate`` float32[n, heads, 1]; ``decay``, logarithms, by heads float32[n, heads, 1] or by
    rows float32[n, heads, size of k]. Gives float32[n, heads, size of v]. Within a step of tokens all corrections follow from a
    triangular system.
    """
    y = np.empty(v.shape, np.float32)
    step = _STEP if decay.shape[2] == 1 else _SHORT_STEP
    for chunk in range(0, len(v), n_ctx):
        state = np.zeros((*k.shape[1:], v.shape[2]), np.float32)
        for start in range(chunk, chunk + n_ctx, step):
            at = slice(start, min(start + step, chunk + n_ctx))
            parts = [part[at].swapaxes(0, 1) for part in (q, k, v, decay, rate)]
            made, state = _step(parts[0], parts[1], parts[2], parts[3], parts[4], state)
            y[at] = made.swapaxes(0, 1)
    return y


def _step(q: Floats, k: Floats, v: Floats, decay: Floats, rate: Floats, state: Floats) -> tuple[Floats, Floats]:
    """What some tokens are told, float32[heads, n, size of v], and the state after them."""
    since = np.cumsum(decay, axis=1, dtype=np.float32)  # what is forgotten since the step began
    k_rated = k * rate
    system = np.tril(_kept_products(k_rated, k, since), -1)
    solved = np.linalg.inv(np.eye(q.shape[1], dtype=np.float32) + system)
    new = np.matmul(solved, v * rate - np.matmul(k_rated * np.exp(since), state))
    made = np.matmul(q * np.exp(since), state) + np.matmul(_kept_products(q, k, since), new)
    last = since[:, -1:]
    state = state * np.exp(last).swapaxes(1, 2) + np.matmul((k * np.exp(last - since)).swapaxes(1, 2), new)
    return made, state


def _kept_products(a: Floats, b: Floats, since: Floats) -> Floats:
    """Products of a token's ``a`` with ``b`` of itself and those before it, of which much is forgotten: float32[heads, n, n]."""
    lower = np.tri(a.shape[1], dtype=bool)
    if since.shape[2] == 1:
        forgotten = np.where(lower, since - since.swapaxes(1, 2), np.float32(-np.inf))
        products: Floats = np.matmul(a, b.swapaxes(1, 2)) * np.exp(forgotten)
        return products
    forgotten = np.where(lower[..., None], since[:, :, None] - since[:, None], np.float32(-np.inf))
    by_row: Floats = np.matmul(np.exp(forgotten) * b[:, None], a[..., None])[..., 0]
    return by_row
