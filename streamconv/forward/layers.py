"""What each layer computes, as keys and tensors say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import BadInput
from ..rows import Rows
from .architectures import Computes
from .layer import Layer
from .positions import latent_factor, rope_of
from .stated import Keys

#: what mixes tokens -> a tensor that tells it; Mamba has what tells the delta rule, too, and latent heads what tells others
_TELLING = {
    "attention": "attn_output.weight", "latent": "attn_kv_a_mqa.weight", "delta": "ssm_a", "scan": "ssm_d",
    "convolution": "shortconv.conv.weight",
}  # fmt: skip


def layer_of(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n_layers: int, size: int, i: int) -> Layer:
    """What layer ``i`` of ``n_layers`` computes, of residuals of ``size`` numbers."""
    mixers = _mixers(rows, computes, i)
    if computes.chunked and keys.get("attention.sliding_window") == 0:
        raise BadInput(
            f"{keys.where}: layers without windows are not computed here ({keys.arch}.attention.sliding_window is 0)"
        )
    n_heads = keys.each("attention.head_count", i, None if {"attention", "latent"} & set(mixers) else 0)
    n_kv = keys.each("attention.head_count_kv", i, n_heads)
    windowed = _has_window(keys, computes, i)
    swa = "_swa" if windowed else ""
    k_size = keys.count("attention.key_length", size // max(n_heads, 1))
    v_size = keys.count("attention.value_length", size // max(n_heads, 1))
    k_size, v_size = (
        keys.count(f"attention.key_length{swa}", k_size),
        keys.count(f"attention.value_length{swa}", v_size),
    )
    n_rotated = keys.count("rope.dimension_count", k_size)
    if not windowed:
        n_rotated = int(n_rotated * computes.rotated)
    n_rotated = keys.count(f"rope.dimension_count{swa}", n_rotated if not swa else min(n_rotated, k_size))
    if "latent" in mixers:
        k_size, v_size = (
            keys.count("attention.key_length_mla", k_size),
            keys.count("attention.value_length_mla", v_size),
        )
    rope, scale = (
        rope_of(rows, keys, computes, n_rotated, windowed),
        _score_scale(keys, computes, size, n_heads, k_size, n_layers),
    )
    if "latent" in mixers:
        scale *= latent_factor(keys)
    if (computes.rope_step and (i + 1) % computes.rope_step == 0) or (
        computes.rope_in_windows_only and not windowed and keys.get("attention.sliding_window")
    ):
        rope = None
    temperature = _temperature(keys, computes)
    if computes.cool_where_unturned and rope is not None:
        temperature = (0.0, 1, 0.0)
    kv_of, kv_to = _slots(keys, computes, n_layers, i)
    sparse = keys.get("activation_sparsity_scale", ())
    return Layer(
        number=i, mixers=mixers, feeds=_feeds(rows, computes, i), n_heads=n_heads, n_kv=n_kv, k_size=k_size, v_size=v_size,
        window=keys.count("attention.sliding_window", computes.window) if windowed else 0,
        scale=scale, cap=keys.real("attn_logit_softcapping", computes.score_cap), rope=rope, kv_of=kv_of, kv_to=kv_to,
        n_experts_used=keys.each("expert_used_count", i) if f"blk.{i}.ffn_gate_inp.weight" in rows else 0,
        value_scale=keys.real("attention.value_scale", 1.0), curve=_curve(keys, computes, i),
        limits=(keys.each_real("swiglu_clamp_exp", i), keys.each_real("swiglu_clamp_shexp", i)),
        chunked=computes.chunked, temperature=temperature,
        bare_norms=rope is not None and computes.bare_norms not in (0, keys.count("expert_count", 0)),
        slope=keys.real("attention.max_alibi_bias", computes.slope), sparsity=float(sparse[i]) if i < len(sparse) else -math.inf,
    )  # fmt: skip


def _mixers(rows: Mapping[str, Rows], computes: Computes, i: int) -> tuple[str, ...]:
    """What mixes tokens in a layer, as its tensors say; attention where they say nothing, except in models of partial layers."""
    found = {mixer for mixer, tensor in _TELLING.items() if f"blk.{i}.{tensor}" in rows}
    for less, more in (("delta", "scan"), ("attention", "delta"), ("attention", "latent")):
        found -= {less} if more in found else set()
    return tuple(sorted(found)) if found or computes.partial else ("attention",)


def _feeds(rows: Mapping[str, Rows], computes: Computes, i: int) -> bool:
    return not computes.partial or any(
        f"blk.{i}.ffn_{part}.weight" in rows for part in ("up", "up_exps", "down", "down_exps")
    )


def _has_window(keys: Keys, computes: Computes, i: int) -> bool:
    window = keys.get("attention.sliding_window", computes.window)
    pattern = keys.get("attention.sliding_window_pattern")
    if not window or computes.windows is None:
        return False
    period, last = computes.windows
    if isinstance(pattern, (int, float)) and not isinstance(pattern, bool):
        period = int(pattern)
    elif pattern is not None:
        return bool(pattern[i])
    return period == 0 or i % period != (period - 1 if last else 0)


def _slots(keys: Keys, computes: Computes, n_layers: int, i: int) -> tuple[int | None, int | None]:
    """Which slot of shared keys and values a layer takes them from, and which it leaves them in: 0 without, 1 with a window."""
    first = n_layers - keys.count("attention.shared_kv_layers", 0)
    if first >= n_layers:
        return None, None
    kind = _has_window(keys, computes, i)
    if i >= first:
        return int(kind), None
    is_last = all(_has_window(keys, computes, j) != kind for j in range(i + 1, first))
    return None, int(kind) if is_last else None


def _curve(keys: Keys, computes: Computes, i: int) -> tuple[float, ...]:
    """The numbers of the activation; two of them are stored so that they cannot be negative."""
    if computes.activation != "xielu":
        return ()
    low, high, beta, epsilon = (keys.of_layer(f"xielu.{name}", i) for name in ("alpha_n", "alpha_p", "beta", "eps"))
    return beta + math.log1p(math.exp(low)), math.log1p(math.exp(high)), beta, epsilon


def _temperature(keys: Keys, computes: Computes) -> tuple[float, int, float]:
    scale, length, offset = computes.temperature
    scale = keys.real("attention.temperature_scale", scale)
    stated = keys.count("attention.temperature_length", 0)
    return (scale, length or stated or keys.original_length(), offset) if scale else (0.0, 1, 0.0)


def _score_scale(keys: Keys, computes: Computes, size: int, n_heads: int, k_size: int, n_layers: int) -> float:
    stated = keys.real("attention.scale", 0.0) or keys.real("attention.output_scale", 0.0)
    if stated or computes.scale:
        return stated or computes.scale
    if not k_size or not n_heads:
        return 1.0
    if computes.wide_layers == n_layers:
        k_size = size // n_heads
    return 1 / math.sqrt(k_size)
