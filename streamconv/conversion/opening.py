"""Opens whatever a user names as a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .. import dequant, sources
from ..rows import Rows
from ..sources.checkpoint import Checkpoint
from ..sources.hub.model import Reference, parse_reference
from .options import Options
from .supply import Supply

#: endings of merge recipes
RECIPES = (".yml", ".yaml")
#: a name with such an ending is a file, though the hub would allow it for a model
_FILE_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".sbs", ".zst", *RECIPES)


def hub_reference(source: str | os.PathLike[str]) -> Reference | None:
    """What ``source`` names on the hub; None when it is, or looks like, something on this machine."""
    text = os.fspath(source)
    ref = parse_reference(text)
    if ref is None or "://" in text:
        return ref
    path = Path(text)
    is_here = os.path.lexists(path) or path.parent.is_dir() or path.parts[0] in (".", "..", "~")
    return None if is_here or (not ref.file and path.suffix in _FILE_ENDINGS) else ref


def open_source(
    source: str | os.PathLike[str], options: Options, supply: Supply | None = None, as_saved: bool = False
) -> Checkpoint:
    """The checkpoint ``source`` names, its weights decoded where they are quantized already.

    Parameters
    ----------
    supply : where models of the hub come from; None: one of its own, with the usual cache
    as_saved : decoded tensors lie the way round in which a plain checkpoint has them, which for some is another one

    Raises
    ------
    BadInput, InputMissing, NoPermission : see the opener of each kind
    NetworkError, Locked : a model of the hub cannot be had
    """
    found = dequant.decoded(open_stored(source, options, supply, as_saved))
    return dequant.as_saved(found) if as_saved else found


def open_stored(
    source: str | os.PathLike[str], options: Options, supply: Supply | None = None, as_saved: bool = False
) -> Checkpoint:
    """The same without decoding: tensors as stored. Tensors of a merge are computed, so they need no decoding."""
    path = Path(source)
    supply = supply or Supply(Path(), offline=options.offline, refresh=options.refresh)
    ref = hub_reference(source)
    if ref is None:
        supply.roots.append(path)
    if path.suffix in RECIPES:
        from .. import merging

        return merging.open_recipe(
            path,
            lambda reference: open_source(reference, options, supply, as_saved),
            open_adapter=lambda reference: _open_adapter(reference, supply, options),
            lenient=options.lenient,
            seed=options.seed,
            allow_crimes=options.allow_crimes,
        )
    if ref is not None:
        return supply.open(ref, options.io, weights=not options.vocab_only)
    cache = _frame_cache(supply, options)
    return sources.open_checkpoint(source, io=options.io, weights=not options.vocab_only, cache=cache)


def _frame_cache(supply: Supply, options: Options) -> sources.FrameCache:
    """Half of the memory of the job, for frames of all its compressed files."""
    if supply.cache is None:
        supply.cache = sources.FrameCache(options.ram // 2)
    return supply.cache


def _open_adapter(reference: str, supply: Supply, options: Options) -> Checkpoint:
    """The LoRA adapter ``reference`` names."""
    from ..merging import lora

    ref = hub_reference(reference)
    if ref is None:
        supply.roots.append(Path(reference))
    folder = Path(reference) if ref is None else supply.open_adapter(ref)
    return lora.open_adapter(folder, partial(sources.open_checkpoint, cache=_frame_cache(supply, options)))


def open_rows(
    source: str | os.PathLike[str], quantization_config: Mapping[str, Any] | None = None
) -> Mapping[str, Rows]:
    """All tensors of ``source`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32.

    ``quantization_config`` stands in for that section of config.json. A tensor whose parts are missing or contradict each other
    is refused, with BadInput, when it is asked for.
    """
    supply = Supply(Path(), gives_way=True)
    return dequant.decoded(open_stored(source, Options(), supply), quantization_config, lenient=True).tensors
