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
from .engine.budget import parse_size
from .engine.run import Reporter
from .planned import plan_facts
from .rows import Floats, Rows
from .settings import Mixing, Settings, documented, options_of

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


@documented(Mixing)
def mix(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int | str | None = None,
    bpw: float | None = None,
    types: str | Sequence[str] | None = None,
    text: str | os.PathLike[str] | None = None,
    check: bool = True,
    thorough: bool = False,
    same_types: bool = False,
    n_ctx: int = 512,
    n_chunks: int | None = None,
    type: str = "auto",
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Mixing],
) -> dict[str, Any]:
    """Choose types with which ``src`` becomes a file of a size; ``convert(tensor_type_file=out)`` makes it with the list ``out``.

    Calling it again goes on where it stopped, or does nothing when the list is there.

    Parameters
    ----------
    src, ram, reporter : as of ``convert``
    out : name of the list
    size, bpw : one of them: the largest size of the file, bytes or text such as ``"4.2GiB"``; or bits per weight
    types : types to choose from; the usual ones when None
    text : file of a text to measure on; one of our own when None
    check : compare with the best standard mix, and keep that where the other is not better
    thorough : measure on four times as many tokens, and each third of the layers by itself
    same_types : the same type for matrices that some runtimes fuse
    n_ctx, n_chunks : tokens of a chunk of the text; the most chunks: 40 of 512 tokens when None, all when -1
    type : file type that the list is used with
    settings : the options of the command line, such as ``imatrix="imatrix.gguf"``

    Returns
    -------
    dict : what ``streamconv mix --json`` prints: ``type`` to convert with, whether the list was there ``already``, and if not,
        ``bytes``, the KL divergences, and what was chosen for each of the ``tensors``

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what was measured is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.mix("examples/tiny-gemma3", "types.txt", bpw=4.5, check=False, n_ctx=64, n_chunks=4)
    >>> out = streamconv.convert("examples/tiny-gemma3", "mix.gguf", type=made["type"], tensor_type_file="types.txt")
    >>> out[0].stat().st_size == made["bytes"]
    True
    """
    from . import sizing
    from .evaluation import Request

    if types is not None and not isinstance(types, str):
        types = ",".join(types)
    n_bytes = parse_size(size) if isinstance(size, str) else size
    path = Path(out)
    request = sizing.MixRequest(
        n_bytes, bpw, types, check, Request(None if text is None else Path(text), n_ctx, n_chunks), thorough, same_types
    )
    made = sizing.make_list(
        os.fspath(src), path, path.with_name(f"{path.name}.gguf"), request, options_of(Mixing, settings, type=type, ram_bytes=ram),
        reporter or progress.Silent(),
    )  # fmt: skip
    facts = sizing.as_json(made) if isinstance(made, sizing.Mix) else {"type": made.type}
    return {"list": str(path), "already": not isinstance(made, sizing.Mix), **facts}


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
