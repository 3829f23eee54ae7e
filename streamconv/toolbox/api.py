"""``streamconv.edit``, ``split``, ``join`` and ``hash``: the tools for GGUF files as functions."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conversion.execution import execute
from ..engine.budget import default_threads
from ..engine.run import Reporter
from ..errors import UsageError
from ..progress import Silent
from ..settings import AnyPath, Copying, Splitting, documented, options_of
from ..sources import IoMode
from .changes import Changes
from .editing import carry_out_in_place, prepare_edit, settle
from .hashing import ALGORITHMS, Hashed, chosen, hash_file, read_manifest
from .splitting import prepare_join, prepare_split

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented(Copying)
def edit(
    src: AnyPath,
    out: AnyPath | None = None,
    *,
    in_place: bool = False,
    set: Mapping[str, Any] | None = None,
    remove: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    name: str | None = None,
    description: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | Mapping[str, str] | None = None,
    special_tokens: Mapping[str, str | int] | None = None,
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Copying],
) -> list[Path]:
    """Write the GGUF file ``src`` with other keys to ``out``, or change it where it lies.

    Parameters
    ----------
    src : a ``.gguf`` file, of a split model the first
    out : name of the output; None with ``in_place``
    in_place : change ``src`` itself: the old file or the new one is there at any moment
    set : values by key, in the type that the key has; a key that is not there is called ``KEY:TYPE``
    remove : keys
    rename : new names by old ones
    name, description, pre_tokenizer : general.name, general.description, tokenizer.ggml.pre
    chat_template : a text, or several by name, which replace all
    special_tokens : by bos, eos, pad, …: the text of a token, or its id
    ram, reporter : as of ``convert``
    settings : the options of the command line, such as ``force=True``

    Returns
    -------
    list of Path : the files that have the keys now

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.convert("examples/tiny-gemma3", "old.gguf", type="Q8_0")
    >>> streamconv.edit("old.gguf", "new.gguf", name="My model", set={"gemma3.context_length": 4096})
    [PosixPath('new.gguf')]
    """
    if (out is None) != in_place:
        raise UsageError("edit: give either out or in_place", "Such as streamconv.edit(src, out, name='Name').")
    tokens = special_tokens or {}
    changes = Changes(
        remove=tuple(remove),
        rename=tuple(f"{old}={new}" for old, new in (rename or {}).items()),
        set=tuple(f"{key}={_text(value)}" for key, value in (set or {}).items()),
        name=name, description=description, pre_tokenizer=pre_tokenizer, template=_template(chat_template),
        tokens=tuple((of, token) for of, token in tokens.items() if isinstance(token, str)),
        token_ids=tuple((of, str(token)) for of, token in tokens.items() if not isinstance(token, str)),
    )  # fmt: skip
    options, told = options_of(Copying, settings, ram_bytes=ram), reporter or Silent()
    if in_place:
        settle(src)
    found = prepare_edit(src, out, changes, options)
    if in_place:
        carry_out_in_place(found, options, told)
    else:
        execute(found.prepared, options, told)
    return [f.path for f in found.prepared.plan.files]


def _text(value: Any) -> str:
    """A value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _template(given: str | Mapping[str, str] | None) -> str | None:
    """A chat template, or several, as the command line has them."""
    if given is None or isinstance(given, str):
        return given
    return json.dumps([{"name": name, "template": text} for name, text in given.items()])


@documented(Splitting)
def split(
    src: AnyPath,
    out: AnyPath,
    *,
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Splitting],
) -> list[Path]:
    """Split a GGUF file, as gguf-split does; calling it again goes on where it stopped.

    Parameters
    ----------
    src : a ``.gguf`` file, of a split model the first
    out : what the names of the shards begin with: OUT-00001-of-0000N.gguf
    ram, reporter : as of ``convert``
    settings : the options of the command line, such as ``split_max_bytes="4G"``; 128 tensors a shard where they say nothing

    Returns
    -------
    list of Path : the shards

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.convert("examples/tiny-gemma3", "tiny.gguf", type="Q8_0")
    >>> [path.name for path in streamconv.split("tiny.gguf", "part", split_max_bytes="4M")]
    ['part-00001-of-00002.gguf', 'part-00002-of-00002.gguf']
    """
    options = options_of(Splitting, settings, ram_bytes=ram)
    prepared = prepare_split(src, out, options)
    execute(prepared, options, reporter or Silent())
    return [f.path for f in prepared.plan.files]


@documented(Copying)
def join(
    src: AnyPath,
    out: AnyPath,
    *,
    ram: str | int | None = None,
    reporter: Reporter | None = None,
    **settings: Unpack[Copying],
) -> Path:
    """Join the shards of a GGUF file, as gguf-split --merge does; calling it again goes on where it stopped.

    Parameters
    ----------
    src : the first shard, NAME-00001-of-0000N.gguf
    out : name of the output, NAME.gguf
    ram, reporter : as of ``convert``
    settings : the options of the command line, such as ``force=True``

    Returns
    -------
    Path : the file

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``; what is finished is kept for the next call

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.convert("examples/tiny-gemma3", "shard.gguf", type="Q8_0", split_max_tensors=40)
    >>> streamconv.join(made[0], "whole.gguf")
    PosixPath('whole.gguf')
    """
    options = options_of(Copying, settings, ram_bytes=ram)
    prepared = prepare_join(src, out, options)
    execute(prepared, options, reporter or Silent())
    return prepared.plan.files[0].path


def hash(
    src: AnyPath,
    *,
    algorithms: str | Collection[str] = (),
    per_tensor: bool = True,
    manifest: AnyPath | None = None,
    io: IoMode = "mmap",
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> list[Hashed]:
    """Digests of each tensor, and of all data, of a GGUF file, as gguf-hash prints them.

    Parameters
    ----------
    src : a ``.gguf`` file, as it is to be named
    algorithms : of ``xxh64``, ``sha1``, ``sha256`` and ``uuid``; by default the strongest of the manifest, else ``xxh64``
    per_tensor : else only of all data
    manifest : file of lines that gguf-hash or ``streamconv hash`` printed, to compare with
    io : how the file is read; pread for unreliable media
    threads : worker threads (default: all cores)
    reporter : told how it goes; silent when None

    Returns
    -------
    list of tuples (algorithm, digest, name, verdict) : the verdict is ``Ok``, ``Mismatch``, ``Not Found`` or ``Missing`` by the
        manifest, else empty

    Raises
    ------
    StreamconvError : one of its subclasses, see ``streamconv.errors``

    Examples
    --------
    >>> import streamconv
    >>> made = streamconv.convert("examples/tiny-gemma3", "tiny.gguf", type="Q8_0")
    >>> print(*streamconv.hash("tiny.gguf", per_tensor=False))
    xxh64     7287cbc5cc0c603d  tiny.gguf
    """
    asked = [algorithms] if isinstance(algorithms, str) else algorithms
    if unknown := [name for name in asked if name not in ALGORITHMS]:
        raise UsageError(f"{unknown[0]!r} is no digest", f"Those are {', '.join(ALGORITHMS)}.")
    known, told = None if manifest is None else read_manifest(Path(manifest)), reporter or Silent()
    try:
        return list(
            hash_file(
                src, chosen(asked, known), per_tensor=per_tensor, manifest=known, io=io,
                n_threads=threads or default_threads(), start=lambda n: told.start(n, 0), advance=told.advance,
            )
        )  # fmt: skip
    finally:
        told.finish()
