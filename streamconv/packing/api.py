"""``streamconv.pack`` and ``streamconv.unpack``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.run import Reporter
from ..progress import Silent
from ..settings import AnyPath, Running, documented, options_of
from .making import execute_pack
from .packing import prepare_pack
from .unpacking import execute_unpack, prepare_unpack

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented(Running)
def pack(
    src: AnyPath,
    out: AnyPath,
    *,
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Running],
) -> list[Path]:
    """Pack the model ``src`` to about two thirds of its size; calling it again goes on where it stopped.

    Every function reads a packed model as it is.

    Parameters
    ----------
    src : checkpoint folder, or a file of safetensors, GGUF or torch
    out : name of the packed model's folder
    ram : memory to allocate, bytes or text such as ``"512MiB"``
    reporter : told how it goes; silent when None
    settings : the options of the command line, such as ``threads=1`` or ``force=True``

    Returns
    -------
    list of Path : the files of the packed model

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> [path.name for path in streamconv.pack("examples/tiny-gemma3", "packed")][:2]
    ['model.safetensors.scpack', 'config.json']
    """
    options = options_of(Running, settings, ram_bytes=ram)
    packing = prepare_pack(src, out, options)
    execute_pack(packing, options, reporter or Silent())
    return [f.path for f in packing.plan.files]


@documented(Running)
def unpack(
    src: AnyPath,
    out: AnyPath,
    *,
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Running],
) -> list[Path]:
    """Unpack a packed model to the same files, bit for bit; calling it again goes on where it stopped.

    Parameters
    ----------
    src : folder of a packed model, or one ``.scpack`` file of it
    out : name of the folder of plain files
    ram, reporter : as of ``pack``
    settings : as of ``pack``

    Returns
    -------
    list of Path : the plain files

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.pack("examples/tiny-gemma3", "packed")
    >>> [path.name for path in streamconv.unpack("packed", "unpacked")][:2]
    ['model.safetensors', 'config.json']
    """
    options = options_of(Running, settings, ram_bytes=ram)
    unpacking = prepare_unpack(src, out, options)
    execute_unpack(unpacking, options, reporter or Silent())
    return [f.path for f in unpacking.plan.files]
