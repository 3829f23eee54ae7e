"""What lies beside the weights of a model and goes along unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..engine.plan import OutputFile
from ..file_names import CONTAINERS, PACK, plain_name
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
    wholes = [c.whole for c in CONTAINERS if c.stem]
    every = [f"{name}/{whole}{ending}" for name in names for whole in wholes for ending in ("", PACK)]
    return [name for name in every if (folder / name).is_file()]


def as_they_are(files: Mapping[str, bytes], output: Path) -> list[OutputFile]:
    """``files`` as files of the folder ``output``."""
    return [OutputFile(output / name, data, len(data)) for name, data in files.items()]
