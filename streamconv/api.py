"""The command line's verbs as Python functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import conversion, progress
from .engine.budget import parse_size
from .engine.run import Reporter
from .rows import RowSource


def _options(type: str, ram: str | int | None, settings: dict[str, Any]) -> conversion.Options:
    ram_bytes = parse_size(ram) if isinstance(ram, str) else ram
    return conversion.Options(type=type, ram_bytes=ram_bytes, **settings)


def convert(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> list[Path]:
    """Convert ``src`` to ``out``; calling it again goes on where it stopped.

    Parameters
    ----------
    src : checkpoint folder, ``.safetensors`` or ``.gguf`` file
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
    StreamconvError : one of its subclasses; what is finished is kept for the next call
    """
    options = _options(type, ram, settings)
    prepared = conversion.prepare(src, out, options)
    conversion.execute(prepared, options, reporter or progress.Silent())
    return [f.path for f in prepared.plan.files]


def plan(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    type: str = "auto",
    ram: str | int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What ``convert`` would do, as ``streamconv plan --json`` prints it; writes nothing."""
    options = _options(type, ram, settings)
    return conversion.describe(conversion.prepare(src, out, options), options)


def open(src: str | os.PathLike[str], quantization_config: Mapping[str, Any] | None = None) -> Mapping[str, RowSource]:
    """The tensors of ``src`` by name; each has ``shape``, ``dtype`` and ``read(start, stop)`` -> float32 rows.

    Parameters
    ----------
    quantization_config : stands in for that section of config.json, for files that have none beside them

    Raises
    ------
    BadInput : a tensor is asked for whose parts are missing or contradict each other; and see ``convert``
    """
    return conversion.open_rows(src, quantization_config)
