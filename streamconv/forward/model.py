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
from .layers import layer_of
from .shapes import refuse_misfits
from .stated import Keys, refuse_strangers

#: endings that some files leave out
_ENDINGS = {"ffn_norm": ".weight", "post_attention_norm": ".weight", "post_ffw_norm": ".weight", "exp_probs_b": ".bias"}


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
    least_decay : the lowest logarithm of what rows of the delta rule's matrix keep; 0: there is none
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
    least_decay: float
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
    """The name of a tensor as other architectures call it; files of Falcon-H1, HY 3 and PLaMo 3 leave its ending out."""
    name += _ENDINGS.get(name.rpartition(".")[2], "")
    for theirs, usual in computes.names.items():
        name = name.replace(f".{theirs}.", f".{usual}.")
    return name


def _planned(rows: Mapping[str, Rows], keys: Keys, computes: Computes, n_layers: int) -> Model:
    size = keys.count("embedding_length")
    n_streams = keys.count("altup.num_inputs", 1)
    norm_kind = computes.norm or ("rms" if "attention.layer_norm_rms_epsilon" in keys else "layer")
    recurrence = _recurrence(keys) if any(f"blk.{i}.ssm_a" in rows for i in range(n_layers)) else None
    router = _router(keys, computes) if keys.count("expert_count", 0) else None
    layers = tuple(layer_of(rows, keys, computes, n_layers, size, i) for i in range(n_layers))
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
        least_decay=keys.real("kda.gate_lower_bound", 0.0) if keys.get("kda.safe_gate", True) else 0.0,
        normed_rates=bool(keys.get("ssm.dt_b_c_rms", False)),
        router=router,
        recurrence=recurrence,
        most_seen=keys.count("attention.indexer.top_k", 0) * keys.count("attention.indexer.block_size", 1),
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
