"""A model that can be run: what its keys and tensors say of every layer, and what is refused before a weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import BadInput
from ..kit.made import Constant
from ..metadata import Metadata
from ..rows import Floats, Rows, matrix_shape
from .architectures import ARCHITECTURES, Computes
from .layer import Layer, Recurrence
from .rope import Rope
from .shapes import refuse_misfits
from .stated import Keys, refuse_strangers

#: what mixes tokens -> a tensor that tells it; Mamba has what tells the delta rule, too, and latent heads what tells others
_TELLING = {
    "attention": "attn_output.weight", "latent": "attn_kv_a_mqa.weight", "delta": "ssm_a", "scan": "ssm_d",
    "convolution": "shortconv.conv.weight",
}  # fmt: skip


@dataclass(frozen=True)
class Router:
    """How experts are chosen: kind of gating (``Computes.gating``), groups, and what weights are scaled by."""

    gating: int
    n_experts: int
    n_groups: int
    n_groups_used: int
    normed: bool
    scale: float


@dataclass(frozen=True)
class Columns:
    """Where in a token's state something lies.

    Attributes
    ----------
    residual : of all streams, one after the other
    expert_input, expert_sum : of models with experts, else empty; narrower than a residual where experts work on a projection
    shared : keys and values of each slot
    width : of the state
    """

    residual: slice
    expert_input: slice
    expert_sum: slice
    shared: Mapping[int, slice]
    width: int


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can be run.

    Attributes
    ----------
    metadata, rows : GGUF's key/values and tensors
    size : numbers of a residual
    n_streams : residuals of a token
    epsilon, norm_kind : of all norms; ``rms`` or ``layer``
    n_rank : numbers of a token that keys and values of latent heads are made of
    most_seen : positions that a token sees at most, of any distance; 0: all
    normed_rates : Mamba norms what it makes of a token, with or without a weight
    """

    arch: str
    computes: Computes
    metadata: Metadata
    rows: Mapping[str, Rows]
    layers: tuple[Layer, ...]
    size: int
    n_streams: int
    active_stream: int
    norm_kind: str
    epsilon: float
    columns: Columns
    embedding_scale: float
    residual_scale: float
    logit_scale: float
    logit_cap: float
    clamp: float
    layer_input_size: int
    normed_rates: bool
    router: Router | None
    recurrence: Recurrence | None
    n_rank: int
    most_seen: int
    in_parallel: bool
    _vectors: dict[str, Floats] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """Layers that are run; blocks that predict further tokens are not."""
        return len(self.layers)

    @property
    def width(self) -> int:
        """Numbers of a token's state."""
        return self.columns.width

    @property
    def n_vocab(self) -> int:
        """Rows of the head."""
        return matrix_shape(self.rows[self.head].shape)[0]

    @cached_property
    def head(self) -> str:
        """The matrix that makes logits: that of the embeddings where there is none of its own."""
        return "output.weight" if "output.weight" in self.rows else "token_embd.weight"

    def vector(self, name: str) -> Floats | None:
        """A small tensor as float32 of its shape, kept; None where there is none."""
        rows = self.rows.get(name)
        if rows is None:
            return None
        if name not in self._vectors:
            self._vectors[name] = rows.read(0, matrix_shape(rows.shape)[0]).reshape(rows.shape)
        return self._vectors[name]

    def needed(self, name: str) -> Floats:
        """The same of a tensor that must be there."""
        found = self.vector(name)
        assert found is not None, name
        return found


def open_model(rows: Mapping[str, Rows], metadata: Metadata, where: str = "the model") -> Model:
    """What the model of ``rows`` and ``metadata`` computes.

    Parameters
    ----------
    rows : GGUF name -> row source
    where : what messages call the model

    Raises
    ------
    BadInput : an architecture, a key or a tensor that is not computed here; names it
    """
    arch = str(metadata.get("general.architecture", ""))
    if not arch:
        what = str(metadata.get("general.type", "")) or "no architecture"
        raise BadInput(f"{where} is no model: it states {what}", "Give a model's own file or folder.")
    if arch not in ARCHITECTURES:
        raise BadInput(
            f"{where}: models of architecture {arch!r} cannot be run here", f"Those that can: {', '.join(sorted(ARCHITECTURES))}."
        )  # fmt: skip
    keys = Keys(metadata, arch, where)
    n_layers = keys.count("block_count") - keys.count("nextn_predict_layers", 0)
    if n_layers < 1:
        raise BadInput(f"{where}: the key {arch}.block_count states {n_layers} layers")
    computes = ARCHITECTURES[arch]
    rows = {_usual(name, computes): each for name, each in rows.items()}
    if computes.unweighted_norms:
        ones = Constant(np.ones(keys.count("embedding_length"), np.float32))
        rows |= {f"blk.{i}.{norm}.weight": ones for i in range(n_layers) for norm in ("attn_norm", "ffn_norm")}
        rows["output_norm.weight"] = ones
    model = _planned(rows, keys, computes, n_layers)
    refuse_strangers(rows, keys, n_layers)
    for layer in model.layers:
        refuse_misfits(rows, layer, model.size, model.recurrence, where)
    return model


def _usual(name: str, computes: Computes) -> str:
    """The name of a tensor as other architectures call it; files of Falcon-H1 and HY 3 leave its ending out."""
    name += {"ffn_norm": ".weight", "exp_probs_b": ".bias"}.get(name.rpartition(".")[2], "")
    for theirs, usual in computes.names.items():
        name = name.replace(f".{theirs}.", f".{usual}.")
    return name


def _planned(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n_layers: int) -> Model:
    size = keys.count("embedding_length")
    n_streams = keys.count("altup.num_inputs", 1)
    norm_kind = computes.norm or ("rms" if "attention.layer_norm_rms_epsilon" in keys else "layer")
    recurrence = _recurrence(keys) if any(f"blk.{i}.ssm_a" in rows for i in range(n_layers)) else None
    router = _router(keys, computes) if keys.count("expert_count", 0) else None
    layers = tuple(_layer(rows, keys, computes, n_layers, size, i) for i in range(n_layers))
    scales = _scales(keys, size, n_layers)
    if computes.scaled_by_width:
        scales["embedding"] = math.sqrt(size)
    logit_scale = scales["logit"] or 1.0
    if keys.get("attention.causal", True) is not True:
        raise BadInput(f"{keys.where}: tokens see later ones (attention.causal is false), so it predicts none")
    return Model(
        arch=keys.arch,
        computes=computes,
        metadata=keys.metadata,
        rows=rows,
        layers=layers,
        size=size,
        n_streams=n_streams,
        active_stream=keys.count("altup.active_idx", 0),
        norm_kind=norm_kind,
        epsilon=keys.real(f"attention.layer_norm_{'rms_' if norm_kind == 'rms' else ''}epsilon"),
        columns=_columns(layers, size, n_streams, keys.count("moe_latent_size", 0) or size if router else 0),
        embedding_scale=scales["embedding"] or 1.0,
        residual_scale=scales["residual"] or 1.0,
        logit_scale=1 / logit_scale if computes.divided_logits else logit_scale,
        logit_cap=keys.real("final_logit_softcapping", computes.logit_cap),
        clamp=keys.real("attention.clamp_kqv", 0.0),
        layer_input_size=keys.count("embedding_length_per_layer_input", 0),
        normed_rates=bool(keys.get("ssm.dt_b_c_rms", False)),
        router=router,
        recurrence=recurrence,
        most_seen=keys.count("attention.indexer.top_k", 0),
        n_rank=keys.count("attention.kv_lora_rank", 0),
        in_parallel=computes.parallel_by_key and bool(keys.get("use_parallel_residual", True)),
    )


def _scales(keys: Keys, size: int, n_layers: int) -> dict[str, float]:
    """Of embeddings, residuals and logits; files of MiniCPM that say nothing mean those of its first models."""
    computes = ARCHITECTURES[keys.arch]
    usual = {"embedding": computes.embedding_scale, "residual": 0.0, "logit": computes.logit_scale}
    if keys.arch in ("minicpm", "minicpm3"):
        usual = {"embedding": 12.0, "residual": 1.4 / math.sqrt(n_layers), "logit": 256 / size}
    return {what: keys.real(f"{what}_scale", value) for what, value in usual.items()}


def _columns(layers: tuple[Layer, ...], size: int, n_streams: int, experts: int) -> Columns:
    at = size * n_streams
    shared = {layer.kv_to: layer.n_kv * (layer.k_size + layer.v_size) for layer in layers if layer.kv_to is not None}
    begin = at + 2 * experts
    slots = {}
    for slot, width in shared.items():
        slots[slot] = slice(begin, begin + width)
        begin += width
    return Columns(slice(0, at), slice(at, at + experts), slice(at + experts, at + 2 * experts), slots, begin)


def _router(keys: Keys, computes: Computes) -> Router:
    gating = keys.count("expert_gating_func", 0) or computes.gating
    if gating not in (1, 2, 3):
        raise BadInput(
            f"{keys.where}: experts are chosen in a way that is not computed here (expert_gating_func {gating})"
        )
    return Router(
        gating=gating,
        n_experts=keys.count("expert_count"),
        n_groups=keys.count("expert_group_count", 1),
        n_groups_used=keys.count("expert_group_used_count", 1),
        normed=bool(keys.get("expert_weights_norm", computes.normed_weights)),
        scale=keys.real("expert_weights_scale", 0.0) or 1.0,
    )


def _recurrence(keys: Keys) -> Recurrence:
    if own := keys.count("kda.head_dim", 0):
        n_heads = keys.count("attention.head_count")
        return Recurrence(n_heads, n_heads, own, own)
    n_values = keys.count("ssm.time_step_rank")
    return Recurrence(
        n_keys=keys.count("ssm.group_count", 1),
        n_values=n_values,
        k_size=keys.count("ssm.state_size"),
        v_size=keys.count("ssm.inner_size") // n_values,
    )


def _layer(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n_layers: int, size: int, i: int) -> Layer:
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
        _rope(rows, keys, computes, n_rotated, windowed),
        _score_scale(keys, computes, size, n_heads, k_size, n_layers),
    )
    if "latent" in mixers:
        scale *= _latent_factor(keys)
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


def _scaling(keys: Keys) -> tuple[str, float]:
    """Kind and factor of what stretches positions."""
    kind = str(keys.get("rope.scaling.type", "linear"))
    factor = keys.real("rope.scaling.factor", 0.0) or keys.real("rope.scale_linear", 0.0) or 1.0
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise BadInput(
            f"{keys.where}: positions are scaled in a way that is not computed here (rope.scaling.type {kind!r})"
        )
    return kind, 1.0 if kind == "none" else factor


def _magnitude(factor: float, multiplier: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1


def _log_multiplier(keys: Keys) -> float:
    """What YaRN's magnitude is scaled by; DeepSeek's converter has multiplied it by 0.1."""
    stated = keys.real("rope.scaling.yarn_log_multiplier", 0.0)
    return stated / 0.1 if keys.arch in ("deepseek2", "deepseek32", "mistral4") else stated


def _latent_factor(keys: Keys) -> float:
    """What YaRN makes of the scale of scores where positions are a part of a head only."""
    kind, factor = _scaling(keys)
    multiplier = _log_multiplier(keys)
    return (_magnitude(factor, multiplier) ** 2) if multiplier and kind == "yarn" else 1.0


def _rope(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n: int, windowed: bool) -> Rope | None:
    finetuned = keys.get("rope.scaling.finetuned")
    sections = keys.get("rope.dimension_sections") or ()
    base = keys.real("rope.freq_base", 10000.0)
    if computes.stretched_base and (alpha := keys.real("rope.scaling.alpha", 0.0)):
        base *= alpha ** (n / (n - 2))
    if computes.rope == "none" or (computes.divided_logits and finetuned is False):
        return None
    kind, factor = _scaling(keys)
    attention = keys.real("rope.scaling.attn_factor", 1.0)
    log_multiplier = _log_multiplier(keys)
    fast, slow = keys.real("rope.scaling.yarn_beta_fast", 32.0), keys.real("rope.scaling.yarn_beta_slow", 1.0)
    halves = computes.rope == "halves" or (keys.arch == "glm4" and any(sections))
    if windowed:
        base = keys.real("rope.freq_base_swa", computes.window_base or base)
        if not computes.window_scaled:
            return Rope(halves, n, base)
    yarn = kind == "yarn"
    if yarn:
        attention *= _yarn_magnitude(keys, factor, log_multiplier)
    factors = {name: name if name in rows else "" for name in ("rope_freqs.weight", "rope_factors_short.weight")}
    short = factors["rope_factors_short.weight"]
    return Rope(
        halves, n, base, 1 / factor, yarn, fast, slow, keys.original_length(), attention,
        factors["rope_freqs.weight"] or short, "rope_factors_long.weight" if short else "",
    )  # fmt: skip


def _yarn_magnitude(keys: Keys, factor: float, log_multiplier: float) -> float:
    """What cosine and sine are multiplied by."""
    if not log_multiplier:
        return _magnitude(factor, 1.0)
    own = log_multiplier if keys.arch == "deepseek2" and log_multiplier != 1 else 1.0
    return _magnitude(factor, own) / _magnitude(factor, log_multiplier)
