"""GGUF files as a source: a strict reader of versions 2 and 3, little-endian, split or whole.

Nothing is trusted before it is checked against the file's length, so a hostile header can neither make us allocate nor loop.
Token texts stay in the mapping until one is asked for. Not checked here: the values, and whether a loader likes the model
(see ``streamconv.check``).

Source: ggml/docs/gguf.md; limits of ggml's gguf.cpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput, InputMissing
from ..file_names import part_names, part_of, plain_name
from ..metadata import Metadata
from ..quant.types import TYPES, TensorType
from ..rows import Bytes, Floats, Rows
from .checkpoint import JOB_KEY, Checkpoint, InputFile, refuse_mixture
from .gguf_header import GgufHeader, GgufTensor, parse_header
from .local_files import open_file as open_local
from .mapped import IoMode, MappedFile
from .naming import shown
from .stored import FileRows, StoredRows
from .widen import STORED_TYPES

OpenFile = Callable[[Path, IoMode], MappedFile]
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


@dataclass(frozen=True)
class GgufFile:
    """One GGUF file.

    Attributes
    ----------
    file : the bytes
    header : version, metadata, alignment and tensor infos in file order
    """

    file: MappedFile
    header: GgufHeader

    @property
    def metadata(self) -> Metadata:
        """Key/values as stored, empty ones included."""
        return self.header.metadata

    @property
    def tensors(self) -> dict[str, GgufTensor]:
        """Tensor infos by name, in file order."""
        return self.header.tensors

    def rows(self, info: GgufTensor) -> Rows:
        """The row source of one tensor."""
        offset = self.header.data_start + info.offset
        if info.type.name in STORED_TYPES:
            return StoredRows(self.file, offset, info.name, info.shape, info.type.name)
        return GgufRows(self.file, offset, info.name, info.shape, info.type)


class GgufRows(FileRows):
    """A tensor of quantized blocks; ``dtype`` is the name of the ggml type, ``stored`` gives the blocks."""

    def __init__(self, file: MappedFile, offset: int, name: str, shape: tuple[int, ...], type: TensorType) -> None:
        super().__init__(file, offset, name, shape, type.name, type.row_bytes(shape[-1]))

    def _decode(self, data: Bytes, out: Floats) -> None:
        # Only here numba is needed; inspecting a file does not pay for it.
        from ..quant.base import codec

        if not TYPES[self.dtype].module:
            raise BadInput(
                f"{self.file.path}: tensor {shown(self.name)} has type {self.dtype}, which cannot be decoded"
            )
        dequantize = codec(self.dtype).dequantize
        if out.flags.c_contiguous:
            dequantize(data, out)
        else:
            dense = np.empty(out.shape, np.float32)
            dequantize(data, dense)
            out[...] = dense


def read_gguf(path: Path, io: IoMode = "mmap", open_file: OpenFile = open_local, lenient: bool = False) -> GgufFile:
    """Read the header of one file and check that its tensors lie apart and inside it; ``lenient``: see ``parse_header``.

    Errors: InputMissing, NoPermission; BadInput names the file and the key or tensor.
    """
    file = open_file(path, io)
    header = parse_header(file, lenient)
    _check_layout(file, header)
    return GgufFile(file, header)


def open_gguf(path: Path, io: IoMode = "mmap", open_file: OpenFile = open_local) -> Checkpoint:
    """Open a model; of a split one, ``path`` is the first file and the others are found by their names.

    Tensors come in file order. The metadata are those of the first file, without the split keys.

    Errors: as ``read_splits``.
    """
    files = read_splits(path, io, open_file)
    first = files[0]
    tensors = {name: each.rows(info) for each in files for name, info in each.tensors.items()}
    metadata = Metadata({key: value for key, value in first.metadata.items() if key and key not in SPLIT_KEYS})
    told = (
        [f"{path}: a key of the metadata is empty, which loaders refuse: it is left out"]
        if "" in first.metadata
        else []
    )
    return Checkpoint(path=path, tensors=tensors, config={}, inputs=_inputs(files), metadata=metadata, warnings=told)


def read_splits(
    path: Path, io: IoMode = "mmap", open_file: OpenFile = open_local, lenient: bool = False
) -> list[GgufFile]:
    """All files of the model whose first or only file is ``path``; ``lenient``: see ``parse_header``.

    Errors: as ``read_gguf``; InputMissing names an absent split; BadInput when the splits contradict each other.
    """
    first = read_gguf(path, io, open_file, lenient)
    files = [first, *_other_splits(first, io, open_file, lenient)]
    seen: set[str] = set()
    for each in files:
        for name in each.tensors:
            if name in seen:
                raise BadInput(f"{each.file.path}: duplicate tensor {shown(name)}, an earlier split holds it too")
            seen.add(name)
    refuse_mixture({each.file.path: str(each.metadata.get(JOB_KEY, "")) for each in files})
    total = first.metadata.get("split.tensors.count", len(seen))
    if len(files) > 1 and total != len(seen):
        raise BadInput(f"{path}: split.tensors.count promises {total} tensors, the {len(files)} files hold {len(seen)}")
    return files


def _inputs(files: list[GgufFile]) -> tuple[InputFile, ...]:
    return tuple(each.file.describe(min(each.header.data_start, each.file.size)) for each in files)


def _other_splits(first: GgufFile, io: IoMode, open_file: OpenFile, lenient: bool) -> list[GgufFile]:
    """The second and later files of a split model."""
    path = first.file.path
    count = first.metadata.get("split.count", 1)
    if type(count) is not int or count <= 1:
        return []
    part = part_of(plain_name(path.name))
    if part is None or part.n_parts != count:
        raise BadInput(f"{path}: split.count is {count}, so the name must end in -00001-of-{count:05d}.gguf")
    paths = [path.with_name(name) for name in part_names(part.stem, count, part.ending)]
    if part.number != 1 or first.metadata.get("split.no") != 0:
        raise BadInput(f"{path} is not the first file of a split model", f"Give {paths[0].name}.")
    others, absent = [], []
    for p in paths[1:]:
        try:
            others.append(read_gguf(p, io, open_file, lenient))
        except InputMissing:
            if os.path.islink(p):  # it leads nowhere
                raise
            absent.append(p.name)
    if absent:
        raise InputMissing(f"{path.parent}: {len(absent)} of {count} splits not found, first {absent[0]}")
    for number, each in enumerate(others, start=1):
        if (each.metadata.get("split.no"), each.metadata.get("split.count")) != (number, count):
            raise BadInput(f"{each.file.path}: its split.no and split.count do not say {number} of {count}")
    return others


def _check_layout(file: MappedFile, header: GgufHeader) -> None:
    """Tensor data lie inside the file and do not overlap; gaps are harmless to a reader."""
    end, before = 0, ""
    for info in sorted(header.tensors.values(), key=lambda info: (info.offset, info.n_bytes)):
        if info.offset < end:
            raise BadInput(
                f"{file.path}: tensor {shown(info.name)} at data offset {info.offset} overlaps {shown(before)}"
            )
        end, before = info.offset + info.n_bytes, info.name
        present = max(0, file.size - header.data_start - info.offset)
        if present < info.n_bytes:
            raise BadInput(
                f"{file.path} is truncated: tensor {shown(info.name)} needs {info.n_bytes} bytes at"
                f" {header.data_start + info.offset}, {present} are there (file size {file.size})",
                "Fetch this file again.",
            )
