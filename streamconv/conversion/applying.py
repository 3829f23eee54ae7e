"""Adapters that a conversion opens: one to be converted itself, with its base, and those of ``--lora``, applied on the way.

An adapter of the names of the checkpoint changes the checkpoint; one of GGUF's names changes what becomes of it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput, InputMissing, NetworkError, UsageError
from ..sources.checkpoint import Checkpoint
from .opening import Opener
from .options import Options
from .target import Target

if TYPE_CHECKING:
    from ..models import Model

_HINT = "Name the model that it was trained on with --base: a folder with its config.json, or its name on the hub."


def opened_adapter(source: str | os.PathLike[str], opener: Opener, options: Options) -> Checkpoint:
    """The LoRA adapter ``source`` with its base, from ``--base`` or as it says itself.

    Raises
    ------
    InputMissing, BadInput, NetworkError : either cannot be had
    """
    adapter = opener.open_adapter(os.fspath(source))
    return replace(adapter, base=_base_of(adapter, opener, options))


def _base_of(adapter: Checkpoint, opener: Opener, options: Options) -> Checkpoint:
    if options.base is not None:
        return opener.open_side_files(os.fspath(options.base))
    named = adapter.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise BadInput(f"{adapter.path}: adapter_config.json does not say which model it is for", _HINT)
    try:
        return opener.open_side_files(named)
    except (InputMissing, NetworkError, BadInput) as e:
        raise type(e)(f"{adapter.path} is for {named!r}, which cannot be read: {e.message}", _HINT) from None


def applied(checkpoint: Checkpoint, opener: Opener, options: Options, target: Target) -> Checkpoint:
    """``checkpoint`` with the adapters of ``--lora``, in their order.

    Raises
    ------
    UsageError : it is an adapter itself, or a word is not FILE[:SCALE]
    BadInput, InputMissing, NetworkError : an adapter cannot be had, or does not fit
    """
    from ..merging.lora import with_adapter

    if options.mmproj or options.vocab_only:
        other = "--mmproj" if options.mmproj else "--vocab-only"
        raise UsageError(f"--lora has no effect with {other}", "Leave one of them out.")
    for text in (
        options.lora if checkpoint.base is None else ()
    ):  # an adapter itself is refused later, with other options
        name, scale = parse(text)
        adapter = opener.open_adapter(name)
        if checkpoint.metadata is not None and adapter.metadata is None:
            adapter = _as_gguf(adapter, _base_of(adapter, opener, options))
        if (checkpoint.metadata is None) == (adapter.metadata is None):
            checkpoint = with_adapter(checkpoint, adapter, scale)
        elif target.is_folder:
            raise UsageError(
                f"{name} is a GGUF adapter, which changes GGUF files only",
                "Give it as PEFT saves it, or name the output OUT.gguf.",
            )
        else:
            inputs = (*checkpoint.inputs, *adapter.inputs)
            checkpoint = replace(checkpoint, inputs=inputs, adapters=(*checkpoint.adapters, (adapter, scale)))
    return checkpoint


def parse(text: str) -> tuple[str, float]:
    """``FILE[:SCALE]``; UsageError for a scale that is no number.

    >>> parse("a.gguf:0.5"), parse("org/adapter")
    (('a.gguf', 0.5), ('org/adapter', 1.0))
    """
    name, colon, tail = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, 1.0
    try:
        scale = float(tail)
    except ValueError:
        scale = float("nan") if "/" not in tail else 1.0
        name = text
    if not isfinite(scale) or not name:
        raise UsageError(
            f"--lora {text}: {tail!r} is not a number", "Write FILE or FILE:SCALE, for example a.gguf:0.5."
        )
    return name, scale


def _as_gguf(adapter: Checkpoint, base: Checkpoint) -> Checkpoint:
    """What a GGUF file of ``adapter`` would be."""
    from .adapter_model import adapter_model

    model = adapter_model(adapter, base)
    return replace(adapter, tensors=model.tensors, metadata=model.metadata, warnings=model.warnings)


def with_adapters(model: Model, checkpoint: Checkpoint) -> Model:
    """``model`` with the adapters of ``checkpoint`` that have its names.

    Raises
    ------
    BadInput : one does not fit
    """
    from ..merging.gguf_adapter import changed

    for adapter, scale in checkpoint.adapters:
        tensors = changed(model.tensors, str(checkpoint.path), model.metadata, adapter, scale)
        model = replace(model, tensors=tensors, warnings=[*model.warnings, *adapter.warnings])
    return model
