"""A LoRA adapter as runtimes load it beside its base: factors named like the tensors of the base in GGUF.

A runtime multiplies ``lora_b lora_a`` by alpha / rank, with one alpha for all. Where modules have others, their ``lora_b`` is
multiplied by what is missing; the alpha of a rank-stabilized adapter is alpha · √rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from .. import models
from ..errors import BadInput
from ..kit import Mapped, Reshaped, Stacked, cut, times
from ..merging.layout import is_head
from ..merging.lora_adapter import CONFIG, INVOCATION, Adapter, Change, read_adapter
from ..merging.lora_rows import LoraRows
from ..metadata import Metadata
from ..rows import Rows, walk
from ..sources.checkpoint import Checkpoint
from ..sources.hf_config import flattened, is_tied
from .factors import NotFactored, factors, low_rank, turned

_TIED = "llama.cpp aborts with the two beside each other, so merge it into its model instead"
_MERGE = "Merge it into its model instead: a recipe with model: MODEL+ADAPTER."


def adapter_model(
    checkpoint: Checkpoint, base: Checkpoint, model_name: str | None = None, overrides: Mapping[str, Any] | None = None
) -> models.Model:
    """What a GGUF file of the adapter ``checkpoint`` holds.

    Parameters
    ----------
    base : the model that it changes, without its weights
    model_name, overrides : as of ``models.build``

    Raises
    ------
    BadInput : it has what no runtime loads, or does not fit the base; names the tensor or the setting
    """
    adapter, base = read_adapter(checkpoint, is_merged=False), models.named(base)
    family = models.family_of(base)
    if adapter.config.get("use_dora"):
        raise BadInput(f"{adapter.where} is a DoRA adapter (use_dora in {CONFIG}), which no runtime loads", _MERGE)
    alpha, changed = _changed(adapter)
    left_out: dict[str, str] = {}
    whole = _saved(adapter, left_out)
    found, others, made_of = models.renamed({**whole, **changed}, checkpoint.path, base, family)
    tied = next((name for name in changed if is_head(name) and is_tied(base.config)), None)
    if tied is not None:
        raise BadInput(
            f"{adapter.where} changes {tied!r}, which {base.path} does not have: its head is the embedding", _MERGE
        )
    tensors: dict[str, Rows] = {}
    for name, rows in found.items():
        if made_of[name] in whole:
            if not name.endswith("_norm.weight"):
                raise _not_loaded(adapter, made_of[name])
            tensors[name] = rows
            continue
        if not any(isinstance(part, LoraRows) for part in walk(rows)):
            continue  # the same whatever the adapter says
        _check_vocabulary(adapter, base, name, rows)
        try:
            a, b = factors(rows)
            if len(b.shape) > 2 and "exps." not in name:  # of latent attention: runtimes load it and apply nothing
                raise NotFactored("runtimes change matrices and stacks of experts only")
        except NotFactored as e:
            raise BadInput(
                f"{adapter.where}: {made_of[name]!r} cannot be written as {name}: {e.message}", _MERGE
            ) from None
        # runtimes look rows of the embedding up in lora_a
        tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = (b, turned(a)) if name == "token_embd.weight" else (a, b)
    warnings = [*checkpoint.warnings, *adapter.warnings, *_told(adapter, base, tensors)]
    metadata = Metadata()
    metadata.string("general.architecture", family.arch)
    n_params = sum(prod(rows.shape) for rows in tensors.values())
    metadata.update(
        models.general_metadata(
            checkpoint, kind="adapter", model_name=model_name, n_params=n_params, overrides=overrides, warnings=warnings
        )
    )
    metadata.string("adapter.type", "lora")
    metadata.f32("adapter.lora.alpha", alpha)
    metadata.array("adapter.alora.invocation_tokens", "UINT32", _invocation(adapter))
    metadata.u32("general.quantization_version", 2)
    return models.Model(family.arch, metadata, tensors, {**left_out, **others}, warnings)


def _changed(adapter: Adapter) -> tuple[float, dict[str, Rows]]:
    """The alpha of the file, and the changed matrices by the names of the base."""
    pairs = {change.module: _pair(adapter, change) for change in adapter.changes.values()}
    alphas = {module: adapter.scale(module, a.shape[-2]) * a.shape[-2] for module, (a, _, _) in pairs.items()}
    alpha = next(filter(None, alphas.values()), 0.0)
    if pairs and not alpha:
        raise BadInput(f"{adapter.where}: with lora_alpha 0 the adapter changes nothing", f"Correct {CONFIG}.")
    found: dict[str, Rows] = {}
    for module, (a, b, transposed) in pairs.items():
        factor = alphas[module] / alpha
        if np.float32(alphas[module]) != np.float32(alpha):
            b = Mapped(b, times(factor))
        found[f"{module}.weight"] = (
            low_rank(a, b, transposed)
            if len(a.shape) == 2
            else Stacked([low_rank(_matrix(a, n), _matrix(b, n), transposed) for n in range(a.shape[0])])
        )
    return alpha or 1.0, found


def _pair(adapter: Adapter, change: Change) -> tuple[Rows, Rows, bool]:
    """The factors of a change, and whether it is one of the matrix transposed."""
    where, parts = adapter.where, change.parts
    other = [*([change.bias] if change.bias else []), *([change.tokens] if change.tokens else [])]
    other += [parts[part] for part in parts if part == "lora_magnitude_vector"]
    if other:
        raise BadInput(f"{where}: tensor {other[0][0]!r} is of a kind that no runtime loads", _MERGE)
    looks_up = any(part.startswith("lora_embedding") for part in parts)
    letters = ("lora_embedding_A", "lora_embedding_B") if looks_up else ("lora_A", "lora_B")
    missing = next((part for part in letters if part not in parts), None)
    if missing is not None:
        have = ", ".join(sorted(name for name, _ in parts.values()))
        raise BadInput(f"{where}: {change.module!r} has no {missing} (there is {have})", "Fetch the adapter again.")
    (a_name, a), (b_name, b) = (parts[part] for part in letters)
    if (
        len(a.shape) not in (2, 3)
        or len(a.shape) != len(b.shape)
        or (*a.shape[:-2], a.shape[-2]) != (*b.shape[:-2], b.shape[-1])
    ):
        raise BadInput(
            f"{where}: tensors {a_name!r} {list(a.shape)} and {b_name!r} {list(b.shape)} cannot be multiplied",
            "Only layers that are matrices can be changed." if len(a.shape) > 3 else "",
        )
    return a, b, looks_up or (adapter.fan_in_fan_out and not is_head(f"{change.module}.weight"))


def _matrix(rows: Rows, number: int) -> Rows:
    """One matrix of a stack."""
    return Reshaped(cut(rows, number, number + 1), rows.shape[1:])


def _saved(adapter: Adapter, left_out: dict[str, str]) -> dict[str, Rows]:
    """Vectors, which are written as they are if they are norms; what the changes were trained on is ``left_out``."""
    found: dict[str, Rows] = {}
    for target, (tensor, rows) in adapter.saved.items():
        if ".base_layer." in tensor:
            left_out[tensor] = "of the base"
        elif len(rows.shape) == 1 and target.endswith(".weight"):
            found[target] = rows
        else:
            raise _not_loaded(adapter, target)
    return found


def _not_loaded(adapter: Adapter, target: str) -> BadInput:
    tensor = adapter.saved[target][0]
    return BadInput(
        f"{adapter.where}: tensor {tensor!r} takes the place of {target!r}, which runtimes do not load from adapters",
        _MERGE,
    )


def _check_vocabulary(adapter: Adapter, base: Checkpoint, name: str, rows: Rows) -> None:
    """BadInput where the vocabulary was resized for the training: runtimes refuse a change of another size."""
    n_tokens = flattened(base.config).get("vocab_size")
    if name in ("token_embd.weight", "output.weight") and n_tokens not in (None, rows.shape[0]):
        raise BadInput(
            f"{adapter.where} changes {rows.shape[0]} rows of {name}, {base.path} has {n_tokens} tokens",
            f"The vocabulary was resized before the training. {_MERGE}",
        )


def _invocation(adapter: Adapter) -> list[int]:
    """The tokens behind which the adapter acts; none: it always does."""
    found = adapter.config.get(INVOCATION) or []
    if not isinstance(found, list) or not all(type(token) is int and 0 <= token < 1 << 32 for token in found):
        raise BadInput(f"{adapter.where}: {INVOCATION} in {CONFIG} is not a list of tokens")
    if not found and adapter.config.get("invocation_string"):
        raise BadInput(
            f"{adapter.where}: {CONFIG} has an invocation_string without {INVOCATION}",
            f"Write the tokens of that text there as {INVOCATION}: [...].",
        )
    return found


def _told(adapter: Adapter, base: Checkpoint, tensors: Mapping[str, Rows]) -> Iterator[str]:
    """What runtimes make of the file that is not what was trained."""
    if norms := [name for name in tensors if name.endswith("_norm.weight")]:
        yield f"{adapter.where} has {len(norms)} norms ({norms[0]}, …), which llama.cpp does not take from an adapter"
    if "token_embd.weight.lora_a" in tensors and is_tied(base.config):
        yield f"{adapter.where} changes the embedding of a model whose head is the same tensor: {_TIED}"
