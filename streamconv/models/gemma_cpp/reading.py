"""What a weight file holds: its configuration, and of every tensor where it lies, its type, shape and scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ...errors import BadInput
from ...quant.sbs.container import CONFIG, JOB, NO_TOKENIZER, TOC, TOKENIZER
from ...quant.sbs.types import SBS_TYPES
from ...rows import Rows
from ...sources.checkpoint import MAX_SIDE_BYTES, Checkpoint
from ...sources.naming import shown
from ...sources.sbs import SbsRows
from ...sources.stored import StoredRows
from .deduced import PREFIXES, SCALES, deduced_config, in_order_of_loading
from .model_config import TYPE_NAMES, ModelConfig, parse_config
from .tensors import LAYOUTS, Entry, tensors
from .toc import parse_toc

#: keys of blobs that are no tensors
NO_TENSORS = (CONFIG, TOKENIZER, TOC, JOB, SCALES)
#: configurations have some kilobytes; an entry of a table of contents has 52 bytes
_MAX_CONFIG_BYTES, _MAX_ENTRY_BYTES = 1 << 20, 128

T = TypeVar("T")


class Tensor(NamedTuple):
    """A tensor as a file has it.

    Attributes
    ----------
    blob : the key of its blob, of older files with the letter of the type before it
    type : name of its type, ``type 9`` where that is not known
    shape : rows and columns, None where the file does not say and the model has no tensor of that name
    """

    blob: str
    type: str
    shape: tuple[int, int] | None
    scale: float = 1.0


@dataclass(frozen=True)
class Contents:
    """A file.

    Attributes
    ----------
    blobs : by their keys
    config : None where the file has none
    listed : whether there is a table of contents
    tensors : by name
    """

    path: Path
    blobs: Mapping[str, StoredRows]
    config: ModelConfig | None
    listed: bool
    tensors: dict[str, Tensor]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the blobs."""
        return {key: blob.n_bytes for key, blob in self.blobs.items()}

    def model(self) -> ModelConfig:
        """The configuration, where there is none that of the model that the keys are of (BadInput: of none)."""
        return self.config or deduced_config(self.sizes, self.path)

    def place(self, name: str) -> str:
        """What messages call a tensor."""
        found = self.tensors[name]
        blob = self.blobs.get(found.blob)
        return f"tensor {shown(name)}" + (f" at byte {blob.offset}" if blob is not None else "")

    def rows(self, name: str, shape: tuple[int, ...]) -> Rows:
        """The rows of a tensor, in a shape of as many values with rows as the file has them.

        Raises
        ------
        BadInput : its type is not known, or its blob has another size
        """
        found = self.tensors[name]
        if fault := self.fault(name):
            raise BadInput(f"{self.path}: {self.place(name)} {fault}", "Make the file again, or fetch it again.")
        blob = self.blobs[found.blob]
        if found.type in ("F32", "BF16") and found.scale == 1:
            return StoredRows(blob.file, blob.offset, name, shape, found.type)
        return SbsRows(blob.file, blob.offset, name, shape, found.type, found.scale)

    def fault(self, name: str) -> str:
        """What is wrong with a tensor by itself, "" where nothing is."""
        found = self.tensors[name]
        if found.blob not in self.blobs:
            return "is in the table of contents, but no blob has its key"
        if found.type not in SBS_TYPES:
            return f"has {found.type}, which no loader takes for a weight"
        if found.type == "NUQ" and not self.listed:
            return "is NUQ, and without a table of contents the order of its parts, which was changed once, is not told"
        if found.shape is None:
            return "is not part of the model"
        blob, (n_rows, n_cols) = self.blobs[found.blob], found.shape
        needed = SBS_TYPES[found.type].n_bytes(n_rows * n_cols)
        if blob.n_bytes != needed:
            return f"is {found.type}[{n_rows}, {n_cols}], which takes {needed} bytes, its blob has {blob.n_bytes}"
        return "" if n_rows * n_cols < 1 << 32 else f"has {n_rows} x {n_cols} values, over the 2^32 of a loader"

    def tokenizer(self) -> bytes | None:
        """The SentencePiece model, None where there is none."""
        found = blob_bytes(self, TOKENIZER, MAX_SIDE_BYTES) if TOKENIZER in self.blobs else NO_TOKENIZER
        return None if found == NO_TOKENIZER else found


def entries_of(config: ModelConfig) -> dict[str, Entry]:
    """Every tensor that a file of this configuration may hold, by key, in both layouts."""
    return {entry.key: entry for layout in LAYOUTS for entry in tensors(config, layout)}


def contents(checkpoint: Checkpoint) -> Contents:
    """What is in the blobs of ``checkpoint``, as ``sources.open_checkpoint`` gives them.

    Raises
    ------
    BadInput : configuration, table of contents or scales are damaged; names file, byte and key
    """
    blobs = {key: rows for key, rows in checkpoint.tensors.items() if isinstance(rows, StoredRows)}
    found = Contents(checkpoint.path, blobs, None, TOC in blobs, {})
    if CONFIG in blobs:
        found = Contents(
            checkpoint.path, blobs, _parsed(found, CONFIG, _MAX_CONFIG_BYTES, parse_config), TOC in blobs, {}
        )
    if found.listed:
        _listed(found)
    else:
        _prefixed(found)
    return found


def blob_bytes(found: Contents, key: str, most: int) -> bytes:
    """The bytes of a blob (BadInput: it has more than ``most``)."""
    blob = found.blobs[key]
    if blob.n_bytes > most:
        raise BadInput(
            f"{found.path}: blob {shown(key)} at byte {blob.offset} has {blob.n_bytes} bytes, over the limit of {most}"
        )
    return bytes(blob.file.view(blob.offset, blob.n_bytes))


def _parsed(found: Contents, key: str, most: int, parse: Callable[[bytes], T]) -> T:
    data = blob_bytes(found, key, most)
    try:
        return parse(data)
    except BadInput as e:
        raise BadInput(
            f"{found.path}: blob {shown(key)} at byte {found.blobs[key].offset}: {e.message}", e.hint
        ) from None


def _listed(found: Contents) -> None:
    """The tensors of a table of contents."""
    for entry in _parsed(found, TOC, _MAX_ENTRY_BYTES * (len(found.blobs) + 1), parse_toc):
        if entry.name in found.tensors:
            raise BadInput(f"{found.path}: the table of contents has two entries for {shown(entry.name)}")
        kind = TYPE_NAMES.get(entry.type, f"type {entry.type}")
        found.tensors[entry.name] = Tensor(entry.name, kind, (entry.rows, entry.cols), entry.scale)


def _prefixed(found: Contents) -> None:
    """The tensors of an older file."""
    for key in found.blobs:
        if key[0] in PREFIXES and key not in NO_TENSORS:
            found.tensors[key[1:]] = Tensor(key, PREFIXES[key[0]], None)


def with_shapes(found: Contents) -> Contents:
    """The same, where there is no table of contents with the shapes and scales that the model gives.

    Raises
    ------
    BadInput : the keys are of no model that is known, or the scales are not those of its tensors
    """
    if found.listed:
        return found
    config = found.model()
    entries = entries_of(config)
    shaped = {
        name: t._replace(shape=entries[name].shape if name in entries else None) for name, t in found.tensors.items()
    }
    if SCALES in found.blobs:
        names = list(in_order_of_loading(config, shaped))
        scales = np.frombuffer(
            blob_bytes(found, SCALES, 4 * len(names) + 4), "<f4", count=found.blobs[SCALES].n_bytes // 4
        )
        if len(scales) != len(names) or not np.isfinite(scales).all():
            raise BadInput(
                f"{found.path}: blob {SCALES!r} at byte {found.blobs[SCALES].offset} has {len(scales)} scales, which must be"
                f" finite; {len(names)} tensors have one"
            )
        shaped |= {name: shaped[name]._replace(scale=float(s)) for name, s in zip(names, scales, strict=True)}
    return Contents(found.path, found.blobs, found.config, False, shaped)
