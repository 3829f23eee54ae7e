"""LoRA adapters in GGUF, applied to tensors of the same names.

    <name>.lora_a [rank, n_in], <name>.lora_b [n_out, rank]     a change of the matrix <name>; those of experts are stacked
    token_embd.weight.lora_a [tokens, rank], .lora_b [n, rank]  of the embedding, whose rows are looked up
    <name>_norm.weight                                          a norm to take instead of the base's

The change is multiplied by ``adapter.lora.alpha / rank``; by 1 where alpha is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import BadInput
from ..kit import Reshaped, Stacked, Transposed, cut
from ..metadata import Metadata
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from .inputs import common_dtype
from .lora_rows import Kept, LoraRows, LowRank
from .merged import CastRows

_A, _B = ".lora_a", ".lora_b"


def with_gguf_adapter(base: Checkpoint, adapter: Checkpoint, scale: float = 1.0) -> Checkpoint:
    """``base``, a GGUF file, with the GGUF file ``adapter`` merged into it, its changes times ``scale``.

    Raises
    ------
    BadInput : either is something else, or they do not fit; names the tensor
    """
    if base.metadata is None:
        raise BadInput(
            f"{adapter.path} is a GGUF adapter, whose tensors have other names than those of {base.path}",
            "Give the adapter as PEFT saves it, or apply it while converting: streamconv convert MODEL OUT.gguf --lora FILE.",
        )
    tensors = changed(base.tensors, str(base.path), base.metadata, adapter, scale)
    warnings = list(dict.fromkeys([*base.warnings, *adapter.warnings]))
    return replace(base, tensors=tensors, inputs=(*base.inputs, *adapter.inputs), warnings=warnings)


def changed(
    tensors: Mapping[str, Rows], where: str, metadata: Metadata, adapter: Checkpoint, scale: float
) -> dict[str, Rows]:
    """``tensors`` by GGUF names, those that ``adapter`` changes changed.

    Parameters
    ----------
    where, metadata : of the model that they belong to
    adapter : a GGUF file, or what would be one

    Raises
    ------
    BadInput : see ``with_gguf_adapter``
    """
    alpha = _alpha(metadata, where, adapter)
    found = dict(tensors)
    kept = Kept()
    for name in dict.fromkeys(n.removesuffix(_A).removesuffix(_B) for n in adapter.tensors):
        was = tensors.get(name)
        if was is None:
            raise BadInput(
                f"{adapter.path}: tensor {next(n for n in adapter.tensors if n.startswith(name))!r} belongs to {name!r},"
                f" which {where} does not have",
                "Give the model that the adapter was trained on.",
            )
        own = adapter.tensors.get(name)
        found[name] = (
            _replaced(adapter, name, was, own) if own is not None else _summed(adapter, name, was, alpha, scale, kept)
        )
    return found


def _alpha(metadata: Metadata, where: str, adapter: Checkpoint) -> float:
    said = adapter.metadata
    if said is None or said.get("general.type") != "adapter":
        raise BadInput(f"{adapter.path} is not a LoRA adapter", "Give one as PEFT saves it, or its GGUF file.")
    kind, alpha = said.get("adapter.type"), said.get("adapter.lora.alpha")
    if kind != "lora" or not isinstance(alpha, float):
        raise BadInput(f"{adapter.path} is an adapter of type {kind!r} with alpha {alpha!r}; only LoRA can be merged")
    if said.get("adapter.alora.invocation_tokens"):
        raise BadInput(
            f"{adapter.path} acts only behind certain tokens, so it cannot become part of the weights",
            "Load it beside its model instead.",
        )
    archs = said.get("general.architecture"), metadata.get("general.architecture")
    if archs[0] != archs[1]:
        raise BadInput(
            f"{adapter.path} is an adapter for {archs[0]!r}, {where} is {archs[1]!r}",
            "Give the model that the adapter was trained on.",
        )
    return alpha


def _replaced(adapter: Checkpoint, name: str, was: Rows, own: Rows) -> Rows:
    if was.shape != own.shape or not name.endswith("_norm.weight"):
        raise BadInput(
            f"{adapter.path}: tensor {name!r} {list(own.shape)} is neither a factor nor a norm of shape {list(was.shape)}"
        )
    dtype = common_dtype([was.dtype])
    return own if own.dtype == dtype else CastRows(own, dtype)


def _summed(adapter: Checkpoint, name: str, was: Rows, alpha: float, scale: float, kept: Kept) -> Rows:
    a, b = adapter.tensors.get(name + _A), adapter.tensors.get(name + _B)
    if a is None or b is None:
        raise BadInput(f"{adapter.path}: {name!r} has one factor of two", "Convert the adapter again.")
    rank = b.shape[-1]
    by = (alpha / rank if alpha and rank else 1.0) * scale
    if name == "token_embd.weight" and len(a.shape) == len(b.shape) == 2:
        a, b = Transposed(b), a
    n_parts = was.shape[0] if len(was.shape) == 3 else 1
    fits = len(was.shape) in (2, 3) and len(a.shape) in (2, 3) and len(b.shape) == len(was.shape)
    if not fits or (a.shape[-1], b.shape[-2], a.shape[-2]) != (was.shape[-1], was.shape[-2], b.shape[-1]) or not rank:
        raise BadInput(
            f"{adapter.path}: the factors of {name!r}, {list(a.shape)} and {list(b.shape)}, do not fit its shape"
            f" {list(was.shape)}",
            "Give the model that the adapter was trained on.",
        )
    if len(was.shape) == 2:
        return LoraRows(was, LowRank(name, a, b, by, False, kept))
    if a.shape[:-2] not in ((), (1,), (n_parts,)) or b.shape[0] != n_parts:
        raise BadInput(f"{adapter.path}: the factors of {name!r} are of {b.shape[0]} experts, there are {n_parts}")
    parts = [
        LoraRows(_matrix(was, n), LowRank(f"{name}.{n}", _matrix(a, n), _matrix(b, n), by, False, kept))
        for n in range(n_parts)
    ]
    return Stacked(parts)


def _matrix(rows: Rows, number: int) -> Rows:
    """Matrix ``number`` of a stack; a single matrix is that of every expert."""
    if len(rows.shape) == 2:
        return rows
    at = min(number, rows.shape[0] - 1)
    return Reshaped(cut(rows, at, at + 1), rows.shape[1:])
