"""The command line's verbs as Python functions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import cluster, conversion, progress
from .engine.run import Reporter
from .planned import plan_facts
from .rows import Floats, Rows
from .settings import Settings, documented

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented(Settings)
def convert(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Settings],
) -> list[Path]:
    """Convert ``src`` to ``out``; calling it again goes on where it stopped, or does nothing when it is done.

    Parameters
    ----------
    src : checkpoint folder, file of weights (``.safetensors``, ``.gguf``, ``.bin``, …), merge recipe ``.yml``, or
        ``org/model[@revision]`` on the hub
    out : name of the output: ``NAME.gguf`` or ``NAME.sbs``, with ``{type}`` in it for several types, or a folder for safetensors
    type : file type such as ``Q4_K_M``, or ``auto``; several with commas between them
    ram : memory to allocate, bytes or text such as ``"512MiB"``
    reporter : told how it goes; silent when None
    settings : the options of the command line, such as ``threads=1`` or ``force=True``

    Returns
    -------
    list of Path : the files of the finished output

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> streamconv.convert("examples/tiny-gemma3", "tiny.gguf", type="Q8_0", ram="256MiB")
    [PosixPath('tiny.gguf')]
    """
    options = conversion.Options.of({"type": type, "ram_bytes": ram, **settings})
    prepare, told = partial(conversion.prepare, src, out, options), reporter or progress.Silent()
    prepared = prepare()
    if options.keep_packed:
        from .packing import kept_packed

        prepared = kept_packed(prepared, options, told, prepare)
    began = time.monotonic()
    outcome = cluster.execute(prepared, options, told)
    seen = (told.peak_memory, told.points) if isinstance(told, progress.Silent) else ()
    run = conversion.Run(time.monotonic() - began, *seen)
    conversion.write_report(prepared, outcome, run, options)
    return [f.path for f in prepared.plan.files]


@documented(Settings)
def plan(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    **settings: Unpack[Settings],
) -> dict[str, Any]:
    """What ``convert`` would do, as ``streamconv plan --json`` prints it; reads headers only and writes nothing.

    Parameters
    ----------
    src, out, type, ram : as of ``convert``
    settings : as of ``convert``

    Raises
    ------
    StreamconvError : what ``convert`` would be refused for before it reads a weight

    Examples
    --------
    >>> import streamconv
    >>> facts = streamconv.plan("examples/tiny-gemma3", "tiny.gguf", type="Q4_K_M")
    >>> facts["architecture"], round(facts["bits_per_weight"], 1), facts["tensors"][0]["reason"]
    ('gemma3', 4.9, 'a vector, never quantized')
    """
    options = conversion.Options.of({"type": type, "ram_bytes": ram, **settings})
    prepared = conversion.prepare(src, out, options)
    try:
        return plan_facts(prepared, options)
    finally:
        prepared.close()


def open(src: str | os.PathLike[str], quantization_config: Mapping[str, Any] | None = None) -> Mapping[str, Rows]:
    """The tensors of ``src`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32 rows.

    Weights that are quantized already are decoded, recipes are merged: row by row, as they are read.

    Parameters
    ----------
    src : as of ``convert``
    quantization_config : stands in for that section of config.json, for files that have none beside them

    Raises
    ------
    BadInput : a tensor is asked for whose parts are missing or contradict each other; and see ``convert``

    Notes
    -----
    Not checked: that values are finite. Files must not change while their rows are read.

    Examples
    --------
    >>> import streamconv
    >>> embedding = streamconv.open("examples/tiny-gemma3")["model.embed_tokens.weight"]
    >>> embedding
    StoredRows('model.embed_tokens.weight', BF16[2048, 256], model.safetensors)
    >>> embedding.read(2, 5).shape
    (3, 256)
    """
    return conversion.open_rows(src, quantization_config)


def logits(src: str | os.PathLike[str], token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> Floats:
    """What the model ``src`` predicts after each of some tokens, one layer after the other in memory.

    Parameters
    ----------
    src : as of ``convert``; of any architecture that can be run, with its weights in any form that is read
    token_ids : n numbers of tokens, the first of a text first; no token is added

    Returns
    -------
    float32[n, vocabulary] : computed in float32; row i has what comes after token i

    Raises
    ------
    BadInput : the architecture, or something that the model states, cannot be run here; it is named before a weight is read
    UsageError : no token of the model has such a number

    Examples
    --------
    >>> import streamconv
    >>> streamconv.logits("examples/tiny-gemma3", [2, 100, 200]).shape
    (3, 2048)
    """
    return conversion.logits(src, token_ids)
