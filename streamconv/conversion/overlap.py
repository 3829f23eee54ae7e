"""Refuses to write over, around or into what the command reads, or the current folder; told by the identity of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import UsageError, raise_exhausted
from ..file_names import GGUF, MLX_ADAPTER, MORE_TEMPLATES, OF_FOLDERS, RECIPES, SBS, container_of, fits, is_weights

Identity = tuple[int, int]

#: names in a folder of a model that a reader takes for weights
_WEIGHTS = (*(each.pattern for each in OF_FOLDERS), "*.index.json", "adapter_model.*", MLX_ADAPTER)
#: endings of configurations, tokenizers and what else is read of a model for GGUF
_SIDE = (".json", ".model", ".txt", ".jinja", ".md", ".yml", ".tiktoken", ".vocab")
#: subfolders of a model that are part of it
_FOLDERS = (MORE_TEMPLATES,)


def refuse_overlap(
    writes: Iterable[Path], folders: Iterable[Path], roots: Iterable[Path], files: Iterable[Path], *, copied: bool
) -> None:
    """Raise UsageError where writing would harm what is read.

    Parameters
    ----------
    writes : files that will be written, or replaced
    folders : folders that will be written to, or replaced
    roots : what the user named as sources: folders of models, files
    files : further files that are read
    copied : the output takes over whatever lies beside the weights
    """
    roots = [Path(root) for root in roots]
    homes = [home for root in roots for home in _homes(root)]
    read = [*files, *roots, *(path for home in homes for path in _parts(home, copied))]
    known = {found: path for path in read if (found := _identity(path)) is not None}
    above = {found: path for path in [*read, *_here()] for found in _above(path)}
    models = {found: home for home in homes if (found := _identity(home)) is not None}
    for path, is_folder in [*((p, False) for p in writes), *((p, True) for p in folders)]:
        mine = _identity(path)
        if mine in known and not path.is_dir():
            raise UsageError(f"{path} is the input itself: {known[mine]} is read", "Choose another name.")
        if mine in above:
            raise UsageError(
                f"{path} would be written to, and is or contains {above[mine]}, which is read or is the current folder",
                "Choose another name.",
            )
        home = models.get(_identity(path.parent) or (0, 0))
        if home is not None and _would_be_part(path.name, is_folder=is_folder, copied=copied):
            raise UsageError(f"{path} would be read as part of the model in {home}", "Choose another name.")


def _would_be_part(name: str, *, is_folder: bool, copied: bool) -> bool:
    """Whether a reader of the folder takes a new file of this name for part of the model; ``copied``: with what lies beside."""
    if is_folder:
        return name in _FOLDERS
    if fits(name, _WEIGHTS):
        return True
    if name.startswith(".") or is_weights(name):
        return False
    return copied or Path(name).suffix in _SIDE


def _homes(root: Path) -> list[Path]:
    """The folder of the model that is, or lies in, ``root``, and those of its subfolders that are part of it."""
    if (container_of(root.name) in (GGUF, SBS) or root.suffix in RECIPES) and not root.is_dir():
        return []  # a file of its own: nothing beside it is read
    home = root if root.is_dir() else root.parent
    return [home, *(home / name for name in _FOLDERS if (home / name).is_dir())]


def _parts(home: Path, copied: bool) -> Iterator[Path]:
    """The files of the model in a folder."""
    try:
        names = sorted(os.listdir(home))
    except OSError as e:
        raise_exhausted(e)
        return
    yield from (home / n for n in names if _would_be_part(n, is_folder=(home / n).is_dir(), copied=copied))


def _here() -> Iterator[Path]:
    """The current folder, which may be gone."""
    try:
        yield Path.cwd()
    except OSError:
        return


def _identity(path: Path) -> Identity | None:
    """What tells a file from all others, None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _above(path: Path) -> Iterator[Identity]:
    """The folders in which ``path`` lies, by its name and by where links lead; a folder is above itself."""
    for place in {Path(os.path.abspath(path)), Path(os.path.realpath(path))}:
        for folder in [place, *place.parents]:
            if folder.is_dir() and (found := _identity(folder)) is not None:
                yield found
