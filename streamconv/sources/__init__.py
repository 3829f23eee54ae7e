"""Where weights are stored. ``open_checkpoint`` opens any of it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BadInput, InputMissing, NoPermission
from .checkpoint import Checkpoint, InputFile, read_object
from .folder import open_folder
from .gguf import GgufFile, open_gguf, read_gguf, read_splits
from .mapped import IoMode, MappedFile
from .safetensors import read_safetensors

__all__ = [
    "Checkpoint",
    "GgufFile",
    "InputFile",
    "IoMode",
    "MappedFile",
    "open_checkpoint",
    "read_gguf",
    "read_splits",
]


def open_checkpoint(path: str | os.PathLike[str], io: IoMode = "mmap", weights: bool = True) -> Checkpoint:
    """Open a checkpoint folder, a single ``.safetensors`` file or a ``.gguf`` file (the first one of a split model).

    Reads headers only. ``io="pread"`` copies instead of mapping, for storage whose errors should not end the process.
    Without ``weights`` a folder may hold a configuration and a tokenizer only.

    Errors: InputMissing, NoPermission, BadInput; see the opener of each kind.
    """
    path = Path(path)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except PermissionError:
        raise NoPermission(f"{path} may not be read") from None
    except (OSError, ValueError) as e:
        raise BadInput(f"{str(path)!r} cannot be a path: {e}") from None
    if not exists:
        raise InputMissing(f"{path} is not there", "Give a checkpoint folder, a .safetensors file or a .gguf file.")
    if is_folder:
        return open_folder(path, io, weights)
    if path.suffix == ".safetensors":
        return _open_single(path, io)
    if path.suffix == ".gguf":
        return open_gguf(path, io)
    raise BadInput(f"{path}: the ending {path.suffix!r} is of no known format", "Known are .safetensors and .gguf.")


def _open_single(path: Path, io: IoMode) -> Checkpoint:
    """One safetensors file, with the config.json beside it if there is one."""
    parsed = read_safetensors(MappedFile(path, io))
    config = path.parent / "config.json"
    return Checkpoint(
        path=path,
        tensors=dict(parsed.tensors),
        config=read_object(config) if config.exists() else {},
        inputs=(parsed.file.describe(parsed.data_start),),
    )
