"""The safetensors container, read strictly.

A file is an 8-byte little-endian header length, a JSON header, and the data, which the tensors tile without holes. Everything
that the format's text forbids is refused before any tensor is handed out, including what common readers let pass: names that
occur twice, bytes that belong to no tensor, booleans for dimensions.
Not checked here: the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

from ..errors import BadInput
from .hostile_json import MAX_JSON_BYTES, NotJson, parse_json
from .mapped import MappedFile
from .naming import shown
from .placeholders import HEAD_BYTES, other_container, refuse_no_weights
from .stored import StoredRows
from .widen import STORED_TYPES

#: of all dimensions that are not 0; in bytes they fit in 63 bits, whatever the type
_MAX_ELEMENTS = 2**59
#: as many as numpy has; far more than any model
_MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class SafetensorsFile:
    """A parsed file.

    Attributes
    ----------
    file : the bytes
    tensors : name -> rows, sorted by name
    metadata : the free text of the header
    data_start : offset of the first data byte
    """

    file: MappedFile
    tensors: dict[str, StoredRows]
    metadata: dict[str, str]
    data_start: int


def read_safetensors(file: MappedFile) -> SafetensorsFile:
    """Parse and validate the header of ``file``.

    Errors: BadInput names the file and, where there is one, the tensor.
    """
    header, data_start = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BadInput(f"{file.path}: __metadata__ in the header is not an object of strings")
    # Each entry goes when its rows are there, or there would be both of all tensors for a while.
    tensors = {name: _tensor(file, data_start, name, header.pop(name)) for name in sorted(header)}
    _check_tiling(file, data_start, tensors)
    return SafetensorsFile(file, tensors, metadata, data_start)


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The JSON header and the offset of the data."""
    refuse_no_weights(file.path, head := bytes(file.view(0, min(file.size, HEAD_BYTES))))
    if file.size < 8:
        raise BadInput(f"{file.path} is truncated: {file.size} bytes are too small for a safetensors header")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_JSON_BYTES:  # before it is read, and where the file is remote, fetched
        what = other_container(head)
        if what:
            raise BadInput(
                f"{file.path} is not a safetensors file: it is {what}", "Rename it with the extension of its format."
            )
        raise BadInput(f"{file.path}: header length {length} is over the limit of {MAX_JSON_BYTES}; not safetensors?")
    if 8 + length > file.size:
        raise BadInput(f"{file.path} is truncated: its header needs {8 + length} bytes, the file has {file.size}")
    try:
        header = parse_json(file.view(8, length).data, _unique)
    except _Duplicate as e:
        raise BadInput(f"{file.path}: duplicate name {shown(e.name)} in the header") from None
    except NotJson as e:
        raise BadInput(f"{file.path}: header {e}") from None
    if not isinstance(header, dict):
        raise BadInput(f"{file.path}: header is not a JSON object")
    return header, 8 + length


class _Duplicate(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names must differ (``json`` alone keeps the last)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name)
            seen.add(name)
    return found


def _tensor(file: MappedFile, data_start: int, name: str, entry: Any) -> StoredRows:
    """One header entry, checked by itself."""
    where = f"{file.path}: tensor {shown(name)}"
    try:
        name.encode("utf-8")  # JSON can spell half of a surrogate pair
    except UnicodeEncodeError:
        raise BadInput(f"{where}: the name has no UTF-8 form") from None
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: header entry is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in STORED_TYPES:
        raise BadInput(f"{where}: unknown dtype {shown(str(dtype))}")
    if not _are_sizes(shape):
        raise BadInput(f"{where}: shape {shown(str(shape))} is not a list of non-negative integers")
    if len(shape) > _MAX_DIMENSIONS:
        raise BadInput(f"{where}: shape has {len(shape)} dimensions")
    if prod(size for size in shape if size) > _MAX_ELEMENTS:
        raise BadInput(f"{where}: shape {shown(str(shape))} overflows 64 bits")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BadInput(f"{where}: data_offsets {shown(str(offsets))} is not [begin, end]")
    begin, end = offsets
    bits = prod(shape) * STORED_TYPES[dtype].bits
    if bits % 8:
        raise BadInput(f"{where}: {prod(shape)} numbers of type {dtype} do not fill whole bytes")
    if end - begin != bits // 8:
        raise BadInput(
            f"{where}: size mismatch: shape {shape} of {dtype} needs {bits // 8} bytes, data_offsets give {end - begin}"
        )
    return StoredRows(file, data_start + begin, name, tuple(shape), dtype)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    """A list of non-negative integers; ``True`` is an int to Python, not to JSON."""
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _check_tiling(file: MappedFile, data_start: int, tensors: dict[str, StoredRows]) -> None:
    """The tensors cover the data exactly: no hole, no overlap, nothing behind, nothing missing."""
    at = data_start
    for rows in sorted(tensors.values(), key=lambda rows: (rows.offset, rows.n_bytes)):
        if rows.offset != at:
            what = f"leaves a hole of {rows.offset - at} bytes" if rows.offset > at else "overlaps the one before"
            raise BadInput(f"{file.path}: tensor {shown(rows.name)} at data offset {rows.offset - data_start} {what}")
        at += rows.n_bytes
    if at > file.size:
        raise BadInput(
            f"{file.path} is truncated: header needs {at} bytes, the file has {file.size} ({at - file.size} are missing)",
            "Fetch this file again.",
        )
    if at < file.size:
        raise BadInput(f"{file.path}: {file.size - at} trailing bytes after the last tensor (file size {file.size})")
