"""The command line's verbs as Python functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import conversion, progress
from .engine.budget import parse_size
from .engine.run import Reporter
from .rows import Rows


def _options(type: str, ram: str | int | None, settings: dict[str, Any]) -> conversion.Options:
    ram_bytes = parse_size(ram) if isinstance(ram, str) else ram
    return conversion.Options.of({"type": type, "ram_bytes": ram_bytes, **settings})


def convert(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> list[Path]:
    """Convert ``src`` to ``out``; calling it again goes on where it stopped, or does nothing when it is done.

    Parameters
    ----------
    src : checkpoint folder, file of weights (``.safetensors``, ``.gguf``, ``.bin``, …), merge recipe ``.yml``, or
        ``org/model[@revision]`` on the hub
    out : name of the output: ``NAME.gguf``, with ``{type}`` in it for several types, or a folder for safetensors
    type : file type such as ``Q4_K_M``, or ``auto``; several with commas between them
    ram : memory to allocate, bytes or text such as ``"512MiB"``
    reporter : told how it goes; silent when None
    settings : fields of ``conversion.Options``, such as ``threads=1`` or ``force=True``

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
    options = _options(type, ram, settings)
    prepared = conversion.prepare(src, out, options)
    outcome = conversion.execute(prepared, options, reporter or progress.Silent())
    if options.report:
        conversion.write_report(prepared, outcome, options.report, options.force)
    return [f.path for f in prepared.plan.files]


def plan(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What ``convert`` would do, as ``streamconv plan --json`` prints it; reads headers only and writes nothing.

    Parameters
    ----------
    src, out, type, ram, settings : as of ``convert``

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
    options = _options(type, ram, settings)
    return conversion.describe(conversion.prepare(src, out, options), options)


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
