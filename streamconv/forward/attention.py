"""Attention inside each chunk: grouped heads, latent heads (MLA), windows, caps, sinks, positions."""

from __future__ import annotations

import math

import numpy as np

from ..rows import Floats
from .blocks import Group
from .layer import Layer
from .matmul import multiply
from .numeric import capped_, layer_norm, rms_norm, sigmoid, softmax_, softplus
from .rope import rotate_

#: heads, and positions of queries, whose scores are held at once
SCORED_HEADS, _QUERIES = 4, 256


def attend(group: Group, x: Floats, shared: Floats | None) -> Floats:
    """What attention gives for the normed ``x`` float32[n, size], before the residual.

    Parameters
    ----------
    shared : of layers that take keys and values from another, or leave theirs: float32[n, …], read or written
    """
    if "latent" in group.layer.mixers:
        y = _latent(group, x)
    else:
        for name in ("q_proj", "k_proj"):  # as in latent heads
            if group.has(f"indexer.{name}.weight"):
                group.observe(f"indexer.{name}.weight", x)
        q, k, v, own = _queries_keys_values(group, x, shared)
        y = scored(q, k, v, group.layer, group.n_ctx, group.vector("attn_sinks.weight")).reshape(len(x), -1)
        if own is not None:
            y *= sigmoid(own)
    if group.has("attn_gate.weight"):  # of each head, or of each of its numbers
        gate = group.product("attn_gate", x)
        gate = softplus(gate) if group.model.computes.soft_gate else sigmoid(gate)
        by_head = y.reshape(len(x), gate.shape[1], -1)
        by_head *= gate[..., None]
    y = group.product("attn_output", y)
    return y if group.layer.value_scale == 1 else np.multiply(y, np.float32(group.layer.value_scale), out=y)


def _queries_keys_values(
    group: Group, x: Floats, shared: Floats | None
) -> tuple[Floats, Floats, Floats, Floats | None]:
    """Queries, keys and values float32[n, heads, size], rotated, and what the output is gated with."""
    layer, model, n = group.layer, group.model, len(x)
    n_q, n_k, n_v = layer.n_heads * layer.k_size, layer.n_kv * layer.k_size, layer.n_kv * layer.v_size
    if group.has("attn_qkv.weight"):
        whole = group.product("attn_qkv", x)
        q, k, v = (
            np.ascontiguousarray(part)
            for part in np.split(whole, (whole.shape[1] - n_k - n_v, whole.shape[1] - n_v), axis=1)
        )
        q, k, v = (group.finished(name, part) for name, part in (("attn_q", q), ("attn_k", k), ("attn_v", v)))
        pair: tuple[Floats, Floats] | None = (k, v)
    else:
        q = group.product("attn_q", x)
        pair = None
        if layer.kv_of is None:
            k = group.product("attn_k", x)
            pair = (k, group.product("attn_v", x) if group.has("attn_v.weight") else k.copy())
    gate = None
    if q.shape[1] == 2 * n_q:
        both = q.reshape(n, layer.n_heads, 2, layer.k_size)
        q, gate = both[:, :, 0].reshape(n, n_q), both[:, :, 1].reshape(n, n_q)
    q = _positioned(group, "attn_q_norm", _clipped(group, q), layer.n_heads)
    q = _tempered(group, q)
    if layer.kv_of is not None:
        assert shared is not None
        k = np.ascontiguousarray(shared[:, :n_k]).reshape(n, layer.n_kv, layer.k_size)
        return q, k, np.ascontiguousarray(shared[:, n_k:]).reshape(n, layer.n_kv, layer.v_size), gate
    assert pair is not None
    k, v = _clipped(group, pair[0]), _clipped(group, pair[1]).reshape(n, layer.n_kv, layer.v_size)
    k = _positioned(group, "attn_k_norm", k, layer.n_kv)
    if model.computes.normed_values:
        v = rms_norm(v, None, model.epsilon)
    if layer.kv_to is not None:
        assert shared is not None
        shared[:, :n_k], shared[:, n_k:] = k.reshape(n, -1), v.reshape(n, -1)
    return q, k, v, gate


def _tempered(group: Group, q: Floats) -> Floats:
    """Queries float32[n, heads, size], larger the later they are asked."""
    scale, length, offset = group.layer.temperature
    if not scale or group.n_ctx + offset <= length:
        return q
    place = np.floor((np.arange(group.n_ctx) + offset) / length) + 1
    factors = (np.log(place) * scale + 1).astype(np.float32)
    tempered: Floats = q.reshape(-1, group.n_ctx, *q.shape[1:]) * factors[:, None, None]
    return tempered.reshape(q.shape)


def _clipped(group: Group, x: Floats) -> Floats:
    limit = np.float32(group.model.clamp)
    return np.clip(x, -limit, limit, out=x) if limit else x


def _positioned(group: Group, norm: str, x: Floats, n_heads: int) -> Floats:
    """``x`` normed, whole or by heads as the shape of the norm says, and rotated: float32[n, heads, size]."""
    model, weight = group.model, group.vector(f"{norm}.weight")
    heads: Floats = x.reshape(len(x), n_heads, -1)
    if model.computes.normed_after_rope:
        _rotate(group, heads)
    if weight is not None:
        of_head = weight.ndim > 1 or weight.shape[-1] == heads.shape[-1]
        by = rms_norm if model.norm_kind == "rms" else layer_norm
        heads = by(heads if of_head else x, weight, model.epsilon).reshape(len(x), n_heads, -1)
        bias = group.vector(f"{norm}.bias")
        if bias is not None:
            heads += bias.reshape(-1, heads.shape[2]) if of_head else bias.reshape(n_heads, -1)
    if not model.computes.normed_after_rope:
        _rotate(group, heads)
    return rms_norm(heads, None, model.epsilon) if group.layer.bare_norms else heads


def _rotate(group: Group, heads: Floats) -> None:
    if group.layer.rope is not None and group.tables is not None:
        rotate_(heads.reshape(-1, group.n_ctx, *heads.shape[1:]), *group.tables, group.layer.rope)


def scored(q: Floats, k: Floats, v: Floats, layer: Layer, n_ctx: int, sinks: Floats | None = None) -> Floats:
    """Values weighted by scores: float32[n, heads, size of a value].

    Parameters
    ----------
    q : float32[n, heads, size]; ``k`` and ``v`` have fewer heads, each for as many of ``q``
    n_ctx : tokens of a chunk; ``n`` is a multiple
    """
    n, n_heads, _ = q.shape
    slopes = _slopes(layer.slope, n_heads) if layer.slope else None
    shared_by = n_heads // k.shape[1]
    out = np.empty((n, n_heads, v.shape[2]), np.float32)
    for chunk in range(0, n, n_ctx):
        for head in range(k.shape[1]):
            keys = np.ascontiguousarray(k[chunk : chunk + n_ctx, head])
            values = np.ascontiguousarray(v[chunk : chunk + n_ctx, head])
            for first in range(head * shared_by, (head + 1) * shared_by, SCORED_HEADS):
                heads = slice(first, min(first + SCORED_HEADS, (head + 1) * shared_by))
                for start in range(0, n_ctx, _QUERIES):
                    at = slice(chunk + start, chunk + min(start + _QUERIES, n_ctx))
                    beside = (None if each is None else each[heads, None, None] for each in (sinks, slopes))
                    out[at, heads] = _weighted(q[at, heads], keys, values, start, layer, *beside)
    return out


def _slopes(steepest: float, n_heads: int) -> Floats:
    """What scores of each head fall by from one position to the next (ALiBi)."""
    n = 1 << (n_heads.bit_length() - 1)
    powers = [-steepest / n * (head + 1) for head in range(n)]
    powers += [-steepest / 2 / n * (2 * head + 1) for head in range(n_heads - n)]
    slopes: Floats = np.exp2(np.array(powers)).astype(np.float32)
    return slopes


def _weighted(
    q: Floats,
    keys: Floats,
    values: Floats,
    start: int,
    layer: Layer,
    sinks: Floats | None,
    slopes: Floats | None,
) -> Floats:
    """Values for queries of positions from ``start`` on, of heads that share keys: float32[n, heads, size]."""
    n, n_heads, size = q.shape
    stop = start + n
    first = max(0, start - layer.window + 1) if layer.window else 0
    if layer.chunked and layer.window:
        first = start // layer.window * layer.window
    scores = np.matmul(q.transpose(1, 0, 2).reshape(n_heads * n, size), keys[first:stop].T).reshape(n_heads, n, -1)
    scores *= np.float32(layer.scale)
    capped_(scores, layer.cap)
    place, other = np.arange(start, stop)[:, None], np.arange(first, stop)
    if slopes is not None:
        scores += slopes * (other - place).astype(np.float32)
    hidden = other > place
    if layer.window:
        hidden |= other < place // layer.window * layer.window if layer.chunked else other <= place - layer.window
    scores[:, hidden] = -np.inf
    softmax_(scores, sinks)
    weighted: Floats = np.matmul(scores.reshape(n_heads * n, -1), values[first:stop])
    by_token: Floats = weighted.reshape(n_heads, n, -1).transpose(1, 0, 2)
    return by_token


def _latent(group: Group, x: Floats) -> Floats:
    """Latent heads: keys and values of all heads are made of one short vector a token; float32[n, heads * size]."""
    layer, model, n = group.layer, group.model, len(x)
    if group.has("attn_q.weight"):
        q = group.product("attn_q", x)
    else:
        narrow = group.normed("attn_q_a_norm", group.product("attn_q_a", x))
        q = group.product("attn_q_b", narrow)
        if group.has("indexer.attn_q_b.weight"):  # it would choose more positions than there are: all of them are seen
            for name, given in (("attn_q_b", narrow), ("attn_k", x), ("proj", x)):
                group.observe(f"indexer.{name}.weight", given)
    q = q.reshape(n, layer.n_heads, layer.k_size)
    both = group.product("attn_kv_a_mqa", x)
    turning = np.ascontiguousarray(both[:, None, model.n_rank :])
    latent = group.normed("attn_kv_a_norm", np.ascontiguousarray(both[:, : model.n_rank]))
    n_turned = turning.shape[2]
    plain, turned = np.ascontiguousarray(q[..., :-n_turned]), np.ascontiguousarray(q[..., -n_turned:])
    _rotate(group, turning)
    _rotate(group, turned)
    if group.has("attn_kv_b.weight"):
        made = group.product("attn_kv_b", latent).reshape(n, layer.n_heads, -1)
        keys = np.concatenate((made[..., : -layer.v_size], np.broadcast_to(turning, turned.shape)), axis=-1)
        values = np.ascontiguousarray(made[..., -layer.v_size :])
        asked = _tempered(group, np.concatenate((plain, turned), axis=-1))
        return scored(asked, keys, values, layer, group.n_ctx).reshape(n, -1)
    asked = _tempered(group, np.concatenate((_by_head(group, "attn_k_b", plain), turned), axis=-1))
    keys = np.concatenate((latent[:, None], turning), axis=-1)
    return _by_head(group, "attn_v_b", scored(asked, keys, latent[:, None], layer, group.n_ctx)).reshape(n, -1)


def _by_head(group: Group, name: str, x: Floats) -> Floats:
    """``x`` float32[n, heads, cols] times a matrix for each head: float32[n, heads, rows]."""
    n, n_heads, _ = x.shape
    group.observe(f"{name}.weight", x.reshape(n, -1))
    weight = group.model.rows[group.layer.name(f"{name}.weight")]
    size = math.prod(weight.shape[:-1]) // n_heads
    out = np.empty((n, n_heads, size), np.float32)
    for head in range(n_heads):
        rows = head * size, (head + 1) * size
        out[:, head] = multiply(np.ascontiguousarray(x[:, head]), weight, group.pieces, group.panel, *rows)
    return out
