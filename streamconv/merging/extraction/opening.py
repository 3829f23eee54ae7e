"""Two models as an adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import BadInput, UsageError
from ...kit import Transposed
from ...rows import Rows, matrix_shape
from ...sources.checkpoint import Checkpoint
from .. import side_files
from .factors import LeftColumns, LeftRows, RightRows, Settings, working_bytes
from .modules import ModuleChoice, Pair, describe, pairs_of, select

CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Extraction:
    """What to extract; see ``ModuleChoice`` and ``Settings``."""

    choice: ModuleChoice
    distribute: bool = True
    epsilon: float = 0.0


def open_extraction(
    base: Checkpoint,
    tuned: Checkpoint,
    extraction: Extraction,
    *,
    base_name: str = "",
    ram_bytes: int | None = None,
) -> Checkpoint:
    """The adapter that turns ``base`` into ``tuned``, as near as its rank allows; reads headers, no weights.

    Parameters
    ----------
    base_name : what the adapter calls its base; empty: the path
    ram_bytes : memory that may be used for one matrix

    Returns
    -------
    Checkpoint : tensors named as PEFT names them; ``config`` is adapter_config.json; ``side`` holds the tokenizer where it
        is not that of the base

    Raises
    ------
    BadInput : the models have not the same structure, or differ in what an adapter cannot express
    UsageError : the choice makes no sense, or needs more memory
    """
    for each in (base, tuned):
        if each.metadata is not None:
            raise BadInput(
                f"{each.path} is a GGUF file, whose tensor names adapters do not use", "Give checkpoint folders."
            )
    choice = extraction.choice
    selection = select(base, pairs_of(base, tuned), choice)
    settings = Settings(choice.rank, extraction.distribute, extraction.epsilon)
    tensors: dict[str, Rows] = {}
    for pair in selection.decomposed:
        _check_memory(pair, choice, ram_bytes)
        tensors |= _factors(pair, settings, pair.module in selection.conv1d)
    for pair in selection.saved:
        tensors[f"base_model.model.{pair.name}"] = pair.tuned
    layers = {pair.module for pair in selection.decomposed}
    for pair in selection.biases:
        inner = "base_layer." if pair.module in layers else ""
        tensors[f"base_model.model.{pair.module}.{inner}bias"] = pair.tuned
    embedding = next((pair.tuned for pair in selection.saved if pair.is_embedding), None)
    if selection.tied and embedding is not None:  # PEFT wants the head in the file, too, though it is the embedding
        tensors["base_model.model.lm_head.weight"] = embedding
    config = describe(selection, choice, base_name or str(base.path))
    return Checkpoint(
        path=tuned.path,
        tensors=tensors,
        config=config,
        inputs=(*base.inputs, *tuned.inputs),
        warnings=[*base.warnings, *tuned.warnings, *_resized(selection.saved)],
        side=_side(base, tuned, config),
        name=f"{tuned.path.name} as an adapter",
    )


def _resized(saved: Sequence[Pair]) -> list[str]:
    """A warning about a vocabulary of another size."""
    found = next((pair for pair in saved if not pair.same_shape), None)
    if found is None:
        return []
    return [
        f"{found.name!r} has {found.tuned.shape[0]} rows, {found.base.shape[0]} in the base: "
        f"PEFT wants the base's embedding resized before it loads the adapter"
    ]


def _factors(pair: Pair, settings: Settings, conv1d: bool) -> dict[str, Rows]:
    """The two factors of a matrix, by name. Of a layer stored as [n_out, n_in] A belongs to the columns, else to the rows."""
    prefix = f"base_model.model.{pair.module}"
    right = RightRows(pair.name, pair.base, pair.tuned, settings)
    if pair.is_embedding:
        a, b = "lora_embedding_A", "lora_embedding_B"
    else:
        a, b = "lora_A.weight", "lora_B.weight"
    if pair.is_embedding or conv1d:
        return {f"{prefix}.{a}": LeftColumns(right), f"{prefix}.{b}": Transposed(right)}
    return {f"{prefix}.{a}": right, f"{prefix}.{b}": LeftRows(right)}


def _check_memory(pair: Pair, choice: ModuleChoice, ram_bytes: int | None) -> None:
    n_rows, n_cols = matrix_shape(pair.base.shape)
    rank = min(choice.rank, n_rows, n_cols)
    needed = working_bytes(n_rows, n_cols, rank)
    if ram_bytes is not None and needed > ram_bytes:
        raise UsageError(
            f"{pair.name!r} of shape {list(pair.base.shape)} needs {needed >> 20} MiB at rank {rank}, "
            f"the budget is {ram_bytes >> 20} MiB",
            "Give a larger --ram or a smaller --rank.",
        )


def _side(base: Checkpoint, tuned: Checkpoint, config: dict[str, object]) -> dict[str, Path | bytes]:
    """adapter_config.json, and the tokenizer of the tuned model where it is not that of the base."""
    names = side_files.tokenizer_names(tuned)
    same = all(tuned.side_bytes(name) == base.side_bytes(name) for name in names)
    found = {name: tuned.side_file(name) for name in names if not same}
    side: dict[str, Path | bytes] = {name: file for name, file in found.items() if file is not None}
    side[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return side
