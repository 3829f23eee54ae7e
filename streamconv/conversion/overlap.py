"""Refuses to write over, around or into what the command reads, or the current folder; told by the identity of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import UsageError, raise_exhausted
from ..sources.checkpoint import is_weights

Identity = tuple[int, int]

#: names in a folder of a model that a reader takes for weights
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.index.json", "adapter_model.*")
#: endings of configurations, tokenizers and what else is read of a model for GGUF
_SIDE = (".json", ".model", ".txt", ".jinja", ".md", ".yml", ".tiktoken", ".vocab")
#: subfolders of a model that are part of it
_FOLDERS = ("additional_chat_templates",)


def refuse_overlap(writes: Iterable[Path], folder: Path | None, roots: Iterable[Path], files: Iterable[Path]) -> None:
    """Raise UsageError where writing would harm what is read.

    Parameters
    ----------
    writes : files that will be written, or replaced
    folder : when the output is one, the folder that becomes the output as a whole
    roots : what the user named as sources: folders of models, files
    files : further files that are read
    """
    roots = [Path(root) for root in roots]
    read = [*files, *roots, *(path for root in roots for path in _parts(root))]
    known = {found: path for path in read if (found := _identity(path)) is not None}
    above = {found: path for path in [*read, Path.cwd()] for found in _above(path)}
    homes = {found: root for root in roots if (found := _identity(root if root.is_dir() else root.parent))}
    for path in dict.fromkeys([*writes, *([folder] if folder is not None else [])]):
        mine = _identity(path)
        if mine in known and not (path.is_dir() and path != folder):
            raise UsageError(f"{path} is the input itself: {known[mine]} is read", "Choose another name.")
        if mine in above:
            raise UsageError(
                f"{path} would be replaced, and holds {above[mine]}, which is read or is the current folder",
                "Choose another name.",
            )
        root = homes.get(_identity(path.parent) or (0, 0))
        if root is not None and _would_be_part(path.name, is_folder=path == folder, copied=folder is not None):
            raise UsageError(f"{path} would be taken for a part of the model in {path.parent}", "Choose another name.")


def _would_be_part(name: str, *, is_folder: bool, copied: bool) -> bool:
    """Whether a reader of the folder takes a new file of this name for part of the model; ``copied``: with what lies beside."""
    if is_folder:
        return name in _FOLDERS
    if any(fnmatchcase(name, pattern) for pattern in _WEIGHTS):
        return True
    if name.startswith(".") or is_weights(name):
        return False
    return copied or Path(name).suffix in _SIDE


def _parts(root: Path) -> Iterator[Path]:
    """The files of the model in a folder, or beside a file of weights."""
    home = root if root.is_dir() else root.parent
    try:
        names = sorted(os.listdir(home))
    except OSError as e:
        raise_exhausted(e)
        return
    for name in names:
        if (home / name).is_dir():
            if name in _FOLDERS:
                yield home / name
                yield from sorted((home / name).iterdir())
        elif _would_be_part(name, is_folder=False, copied=root.is_dir()):
            yield home / name


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
