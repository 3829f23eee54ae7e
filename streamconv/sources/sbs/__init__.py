"""gemma.cpp's weight files (``.sbs``): the container, and rows of the tensors in it.

What blobs are is not said here: that needs the names of a model, see ``models/gemma_cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..checkpoint import Checkpoint
from ..mapped import IoMode, MappedFile
from ..stored import StoredRows
from .container import Blob, Store, read_store
from .rows import SbsRows

__all__ = ["Blob", "SbsRows", "Store", "open_sbs", "read_store"]


def open_sbs(
    path: Path, io: IoMode = "mmap", open_file: Callable[[Path, IoMode], MappedFile] = MappedFile
) -> Checkpoint:
    """The blobs of a file by their keys, as vectors of bytes; without configuration.

    Errors: InputMissing, NoPermission; BadInput names file, byte and key.
    """
    store = read_store(open_file(path, io))
    blobs = {key: StoredRows(store.file, b.offset, key, (b.n_bytes,), "U8") for key, b in store.blobs.items()}
    return Checkpoint(path=path, tensors=blobs, config={}, inputs=(store.file.describe(store.first),), side={})
