"""A mixture of experts as a checkpoint: the base model with the feed-forward layers of all experts in its own one's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import BadInput, UsageError
from ...kit import Stacked, cut
from ...rows import Rows, matrix_shape
from ...sources.checkpoint import Checkpoint
from .. import assembly, config_edit, side_files
from ..counter_random import CounterRandom
from ..inputs import common_dtype, is_whole
from ..merged import CastRows, MergedRows
from ..method import Task
from ..methods import METHODS
from ..opener import Opener
from ..resolving import Model, open_layouts
from .gates import GateRows, PromptGate, expert_prompts, joined
from .recipe import Expert, Mixture
from .rows import NoisyRows, RandomRows
from .targets import TARGETS, MixtureTarget, default_target

_GATE, _UP, _DOWN = (f"{part}_proj" for part in ("gate", "up", "down"))
_PROJECTIONS = (_GATE, _UP, _DOWN)


def assemble_mixture(mixture: Mixture, opener: Opener, path: Path, text: str) -> Checkpoint:
    """The checkpoint of one document; see ``assembly.assemble``.

    Raises
    ------
    BadInput, UsageError, InputMissing : the models do not fit each other or any architecture
    """
    checkpoints = opener.models(mixture.references())
    models = open_layouts(checkpoints)
    base = models[str(mixture.base)]
    target = _target(mixture, models)
    tensors = _Builder(mixture, models, target, opener).tensors()
    config = config_edit.copied(base.checkpoint.config)
    config_edit.without_quantization(config)
    config.pop("_name_or_path", None)
    config["architectures"], config["model_type"] = [target.architecture], target.model_type
    target.config(config, len(mixture.experts), len(mixture.shared), mixture.per_token)
    assembly.state_dtype(config, tensors.values())
    side = side_files.collect(list(checkpoints.values()), None)
    side[side_files.CONFIG] = side_files.config_text(config)
    described = f"{len(mixture.experts)} experts behind a gate ({mixture.gate})"
    side |= side_files.cards(path.stem, described, opener.leaves, text)
    return Checkpoint(
        path=path,
        tensors=tensors,
        config=config,
        inputs=assembly.inputs(path, checkpoints),
        warnings=opener.warnings,
        side=side,
        name=path.stem,
    )


def _target(mixture: Mixture, models: dict[str, Model]) -> MixtureTarget:
    """The architecture of the result."""
    types = {name: str(model.checkpoint.config.get("model_type", "")) for name, model in models.items()}
    own = types[str(mixture.base)]
    if mixture.architecture is None:
        target = default_target(own, bool(mixture.shared))
    else:
        target = next(t for name, t in TARGETS.items() if name.startswith(mixture.architecture))
    known = ", ".join(f"{t.name} (of {' and '.join(t.inputs)})" for t in TARGETS.values())
    if target is None:
        raise BadInput(f"{mixture.where}: no mixture can be made of {own or 'this'} models", f"Known: {known}.")
    wrong = next((name for name, found in types.items() if found not in target.inputs), None)
    if wrong is not None:
        raise BadInput(
            f"{mixture.where}: {wrong} is a {types[wrong] or 'nameless'} model, {target.name} accepts "
            f"{' and '.join(target.inputs)}",
            f"Known: {known}.",
        )
    n = len(mixture.shared)
    if n > 1 or (n == 1) > (target.shared is not None) or (n == 0 and target.shared_gate is not None):
        wanted = "exactly one shared expert" if target.shared_gate else "at most one" if target.shared else "none"
        raise BadInput(
            f"{mixture.where}: {n} shared_experts, {target.name} accepts {wanted}", "Change how many are listed."
        )
    if target.shared_gate and not mixture.is_random and not mixture.shared[0].positive:
        raise BadInput(
            f"{mixture.where}: shared_experts[0]: no positive_prompts, from which {target.name} also computes a gate",
            "Add some, or use gate_mode: random.",
        )
    return target


class _Builder:
    """The tensors of a mixture."""

    def __init__(self, mixture: Mixture, models: dict[str, Model], target: MixtureTarget, opener: Opener) -> None:
        self._mixture = mixture
        self._models = models
        self._base = models[str(mixture.base)]
        self._target = target
        self._options = opener.options
        self._places = {name: place for place, name in self._base.layout.names.items()}
        self._states: Rows | None = None
        self._gates: tuple[PromptGate, PromptGate] | None = None
        if mixture.is_random:
            return
        everyone = (*mixture.experts, *(mixture.shared if target.shared_gate else ()))
        name = self._base.layout.embedding
        if name is None:
            raise BadInput(f"{mixture.where}: {self._base.name} has no token embedding, which {mixture.gate} needs")
        embedding = self._base.checkpoint.tensors[name]
        prompts = expert_prompts(mixture, self._base.checkpoint, everyone, embedding.shape[0])
        if mixture.gate != "cheap_embed":
            if opener.open_states is None:
                raise UsageError(
                    f"{mixture.where}: gate_mode {mixture.gate} needs a model that runs, and here none does"
                )
            self._states = opener.open_states(self._base.checkpoint, prompts, mixture.gate == "hidden_avg")
            return
        ids, n = joined(prompts), len(mixture.experts)
        self._gates = PromptGate(embedding, ids[:n]), PromptGate(embedding, ids[n:])

    def tensors(self) -> dict[str, Rows]:
        """All of them in the order of the base."""
        found: dict[str, Rows] = {}
        done = set()
        for place, name in self._base.layout.names.items():
            if place.layer is None or not place.key.startswith("mlp."):
                found[name] = self._cast(self._base.checkpoint.tensors[name])
                continue
            if place.key not in [f"mlp.{part}.weight" for part in _PROJECTIONS]:
                raise BadInput(
                    f"{self._mixture.where}: {self._base.name} has {name!r}, which has no place in an expert"
                )
            if place.layer not in done:
                done.add(place.layer)
                found |= self._layer(name[: -len(place.key)] + "mlp.", place.layer)
        return found

    def _cast(self, rows: Rows) -> Rows:
        wanted = self._mixture.dtype
        if is_whole(rows.dtype) or rows.dtype == (wanted or common_dtype([rows.dtype])):
            return rows
        return CastRows(rows, wanted or common_dtype([rows.dtype]))

    def _layer(self, prefix: str, layer: int) -> dict[str, Rows]:
        """One layer's gate and experts; ``prefix`` is what all their names begin with."""
        mixture, target = self._mixture, self._target
        numbers = range(len(mixture.experts))
        parts = {part: [self._weights(prefix, part, k, mixture.experts[k]) for k in numbers] for part in _PROJECTIONS}
        dtype, (ffn, hidden) = parts[_GATE][0].dtype, parts[_GATE][0].shape
        found: dict[str, Rows] = {}
        like = len(mixture.experts), hidden
        found[f"{prefix}gate.weight"] = self._gate_rows(f"{prefix}gate.weight", layer, like, dtype)
        if target.fused:
            pairs = [part for pair in zip(parts[_GATE], parts[_UP], strict=True) for part in pair]
            found[f"{prefix}experts.gate_up_proj"] = _stacked(pairs, (len(numbers), 2 * ffn, hidden))
            found[f"{prefix}experts.down_proj"] = _stacked(parts[_DOWN], (len(numbers), hidden, ffn))
        else:
            for part in _PROJECTIONS:
                found |= {f"{prefix}experts.{k}.{part}.weight": parts[part][k] for k in numbers}
        for number, expert in enumerate(mixture.shared, len(numbers)):
            for part in _PROJECTIONS:
                found[f"{prefix}{target.shared}.{part}.weight"] = self._weights(prefix, part, number, expert)
            if target.shared_gate is not None:
                name = f"{prefix}{target.shared_gate}.weight"
                found[name] = self._gate_rows(name, layer, (1, hidden), dtype, shared=True)
        return found

    def _weights(self, prefix: str, part: str, number: int, expert: Expert) -> Rows:
        """One matrix of one expert, with its noise and scale."""
        model, own = self._models[str(expert.model)], f"{prefix}{part}.weight"
        name = model.layout.names.get(self._places[own])
        if name is None:
            raise BadInput(f"{self._mixture.where}: {model.name} has no tensor for {own!r}")
        rows, like = model.checkpoint.tensors[name], self._base.checkpoint.tensors[own]
        if rows.shape != like.shape:
            raise BadInput(
                f"{self._mixture.where}: {own!r} has shape {list(like.shape)} in {self._base.name} "
                f"and {list(rows.shape)} in {model.name}",
                "Experts must be models of one size.",
            )
        rows = self._cast(rows)
        if expert.noise:
            rng = CounterRandom(self._options.seed, self._mixture.name or "", own, number)
            rows = NoisyRows(rows, expert.noise, rng)
        if part == _DOWN and expert.residual != 1:
            rows = _scaled(own, rows, expert.residual)
        return rows

    def _gate_rows(self, name: str, layer: int, shape: tuple[int, int], dtype: str, shared: bool = False) -> Rows:
        """The gate of one layer, or that of its shared expert."""
        if self._gates is not None:
            return GateRows(self._gates[shared], dtype)
        if self._states is not None:
            n = len(self._mixture.experts)
            start = layer * (n + (self._target.shared_gate is not None)) + shared * n
            return CastRows(cut(self._states, start, start + shape[0]), dtype)
        rng = CounterRandom(self._options.seed, self._mixture.name or "", name)
        return RandomRows(shape, dtype, self._mixture.gate == "random", rng)


def _scaled(name: str, rows: Rows, scale: float) -> Rows:
    """The rows times a number."""
    n_rows, n_cols = matrix_shape(rows.shape)
    task = Task(
        name, n_rows, n_cols, len(rows.shape), [name], False, shared={"normalize": False}, each=[{"weight": scale}]
    )
    return MergedRows(name, [rows], METHODS["linear"].bound(task), rows.dtype)


def _stacked(parts: Sequence[Rows], shape: tuple[int, ...]) -> Stacked:
    """The parts in their common precision."""
    dtype = common_dtype([part.dtype for part in parts])
    return Stacked([part if part.dtype == dtype else CastRows(part, dtype) for part in parts], shape)
