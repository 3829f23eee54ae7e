"""What lies beside the weights of a model and goes along unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..conversion.unfinished import check_name
from ..engine.plan import OutputFile
from ..errors import UsageError
from ..file_names import CONTAINERS, PACK, PACKED_FORMATS, plain_name
from ..sources.checkpoint import MAX_SIDE_BYTES, Checkpoint
from ..sources.side_links import is_module
from ..sources.small_files import read_small


def small_files(folder: Path, weights: Iterable[str]) -> Mapping[str, bytes]:
    """Side files of the model in ``folder``, and the index of its ``weights``, by name.

    Errors: as ``Checkpoint.side_bytes``.
    """
    opened = Checkpoint(folder, {}, {}, ())
    found = {name: data for name in opened.side_names() if (data := opened.side_bytes(name)) is not None}
    endings = {Path(plain_name(name)).suffix for name in weights}
    for index in (f"{c.stem}{c.endings[0]}.index.json" for c in CONTAINERS if c.stem and c.endings[0] in endings):
        if (folder / index).is_file():
            found[index] = read_small(folder / index, MAX_SIDE_BYTES)
    return found


def further_weights(folder: Path) -> list[str]:
    """Files of weights in folders of ``folder`` that belong to the model, by name: modules of an embedding model."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and is_module(p.name))
    every = [f"{name}/{c.whole}" for name in names for c in CONTAINERS if c.stem]
    return [name for name in every if (folder / name).is_file()]


def as_folder(output: str | os.PathLike[str]) -> Path:
    """The name of an output, which is a folder.

    Errors: UsageError for a name that none can have, or that is one of a file of weights.
    """
    path = check_name(output)
    if path.suffix in (PACK, *PACKED_FORMATS):
        raise UsageError(f"{path}: the output is a folder", f"Name it {path.with_suffix('')}.")
    return path


def as_they_are(files: Mapping[str, bytes], output: Path) -> list[OutputFile]:
    """``files`` as files of the folder ``output``."""
    return [OutputFile(output / name, data, len(data)) for name, data in files.items()]
