"""The second half of a layer: a plain or gated network, or experts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rows import Floats, Rows, matrix_shape
from .blocks import Group, Observe
from .layer import Layer
from .matmul import multiply, pieces_of
from .model import Model
from .numeric import ACTIVATIONS, gated_, rms_norm, sigmoid, softmax_


def feed(group: Group, x: Floats, suffix: str = "") -> Floats:
    """The network ``ffn_up``, ``ffn_gate``, ``ffn_down`` with ``suffix``, of the normed ``x``."""
    up, gate, down = (f"ffn_{part}{suffix}" for part in ("up", "gate", "down"))
    activation, limit = group.model.computes.activation, group.layer.limits[1]
    if group.has(f"{gate}.weight"):
        g = _sparse_(group.product(gate, x), group.layer.sparsity)
        return group.product(down, gated_(activation, g, group.product(up, x), limit))
    y = group.product(up, x)
    n_inner = group.model.rows[group.layer.name(f"{down}.weight")].shape[-1]
    if y.shape[1] == 2 * n_inner:  # gate and up in one
        return group.product(down, np.ascontiguousarray(gated_(activation, y[:, :n_inner], y[:, n_inner:], limit)))
    return group.product(down, ACTIVATIONS[activation](y, *group.layer.curve))


def _sparse_(gate: Floats, deviations: float) -> Floats:
    """What lies so many deviations above the mean of a row, less that; unchanged for -inf."""
    if deviations == -np.inf:
        return gate
    cut = gate.mean(axis=-1, keepdims=True) + np.float32(deviations) * gate.std(axis=-1, ddof=0, keepdims=True)
    gate -= cut
    np.maximum(gate, np.float32(0), out=gate)
    return gate


@dataclass(frozen=True)
class Routes:
    """Which experts each token goes to, and with what weight: int32 and float32[n, used]."""

    experts: NDArray[np.int32]
    weights: Floats


def route(group: Group, residual: Floats, x: Floats) -> Routes:
    """The experts of every token; ``x`` is the normed ``residual``."""
    model, router = group.model, group.model.router
    assert router is not None
    factors = group.vector("ffn_gate_inp.scale")
    if factors is not None:  # it norms for itself
        x = rms_norm(residual, None, model.epsilon) * np.float32(model.size**-0.5) * factors
        group.observe("ffn_gate_inp.weight", x)
        logits = multiply(x, model.rows[group.layer.name("ffn_gate_inp.weight")], group.pieces, group.panel)
    else:
        logits = group.product("ffn_gate_inp", x)
    shares = softmax_(logits.copy()) if router.gating == 1 else sigmoid(logits) if router.gating == 2 else logits
    wanted = shares
    bias = group.vector("exp_probs_b.bias")
    if bias is not None:
        wanted = wanted + bias.reshape(-1)
    if router.n_groups > 1:
        n_best = 2 if router.gating == 2 else 1
        wanted = _of_best_groups(wanted, router.n_groups, router.n_groups_used, n_best)
    chosen = np.argsort(-wanted, axis=1, kind="stable")[:, : group.layer.n_experts_used].astype(np.int32)
    weights = np.take_along_axis(shares, chosen, axis=1)
    if router.gating == 3:
        softmax_(weights)
    if router.normed:
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(2.0**-14))
    return Routes(chosen, weights * np.float32(router.scale))


def _of_best_groups(shares: Floats, n_groups: int, n_used: int, n_best: int) -> Floats:
    """``shares`` of experts in the groups whose ``n_best`` sum up highest; -inf for the others.

    DeepSeek V2, whose shares are a softmax, goes by the best of a group, V3 by the best two.
    """
    grouped = shares.reshape(len(shares), n_groups, -1)
    sums = np.sort(grouped, axis=2)[:, :, -n_best:].sum(axis=2)
    best = np.argsort(-sums, axis=1, kind="stable")[:, :n_used]
    kept = np.full_like(grouped, -np.inf)
    np.put_along_axis(kept, best[:, :, None], np.take_along_axis(grouped, best[:, :, None], axis=1), axis=1)
    return kept.reshape(shares.shape)


def expert(
    model: Model, layer: Layer, number: int, x: Floats, first_piece: int, panel: Floats, observe: Observe | None
) -> Floats:
    """What expert ``number`` gives for some of its tokens, float32[n, size], unweighted.

    Parameters
    ----------
    first_piece : number of the first piece of ``x`` among those of the expert
    """
    pieces = pieces_of(len(x))
    for part in ("gate_up", "gate", "up", "down"):
        rows = model.rows.get(layer.name(f"ffn_{part}_exps.weight"))
        if rows is not None:
            rows.prefetch(*(matrix_shape(rows.shape)[0] // rows.shape[0] * at for at in (number, number + 1)))

    def product(name: str, x: Floats) -> Floats:
        full = layer.name(f"{name}.weight")
        for at, piece in enumerate(pieces):
            if observe is not None:
                observe(full, first_piece + at, x[piece], number)
        weight: Rows = model.rows[full]
        size = matrix_shape(weight.shape)[0] // weight.shape[0]
        y = multiply(x, weight, pieces, panel, number * size, (number + 1) * size)
        bias, scale = model.vector(layer.name(f"{name}.bias")), model.vector(layer.name(f"{name}.scale"))
        if scale is not None:
            y *= scale.reshape(-1)[number if scale.size > 1 else 0]
        return y if bias is None else np.add(y, bias.reshape(weight.shape[0], -1)[number], out=y)

    activation, limit = model.computes.activation, layer.limits[0]
    if layer.name("ffn_gate_up_exps.weight") in model.rows:
        both = product("ffn_gate_up_exps", x)
        half = both.shape[1] // 2
        inner = np.ascontiguousarray(gated_(activation, both[:, :half], both[:, half:], limit))
    elif layer.name("ffn_gate_exps.weight") in model.rows:
        inner = gated_(activation, product("ffn_gate_exps", x), product("ffn_up_exps", x), limit)
    else:
        inner = ACTIVATIONS[activation](product("ffn_up_exps", x), *layer.curve)
    return product("ffn_down_exps", inner)
