"""GGUF version 3: header, key/values, tensor infos, and where each tensor's bytes go.

The whole file but the data follows from names, shapes and types, so it is laid out before one weight is read.
Little endian, alignment 32, every tensor padded to it, also the last. Source: the GGUF specification and gguf-py's writer.

Not checked here: that the tensors are what a loader wants.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..file_names import part_names
from ..metadata import VALUE_TYPES, Metadata, Value
from .layout import FileLayout, TensorInfo, split

ALIGNMENT = 32
_MAGIC, _VERSION = b"GGUF", 3
_NUMPY = {
    "UINT8": "u1", "INT8": "i1", "UINT16": "<u2", "INT16": "<i2", "UINT32": "<u4", "INT32": "<i4", "FLOAT32": "<f4",
    "BOOL": "?", "UINT64": "<u8", "INT64": "<i8", "FLOAT64": "<f8",
}  # fmt: skip


def _string(text: str) -> bytes:
    # Token texts may hold lone surrogates when a tokenizer file does; they cannot be written as UTF-8.
    raw = text.encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def encode_value(value: Value) -> bytes:
    """Type number and bytes of one value."""
    number, fmt = VALUE_TYPES[value.type]
    head = struct.pack("<I", number)
    if value.type == "STRING":
        return head + _string(value.value)
    if value.type != "ARRAY":
        return head + struct.pack("<" + fmt, value.value)
    head += struct.pack("<IQ", VALUE_TYPES[value.elem][0], len(value.value))
    if value.elem == "STRING":
        packed = getattr(value.value, "packed", None)  # token lists come encoded, to be small in memory
        return b"".join((head, *(map(_string, value.value) if packed is None else [packed])))
    return head + np.asarray(value.value, _NUMPY[value.elem]).tobytes()


def file_layout(
    path: Path,
    metadata: Metadata,
    tensors: Sequence[TensorInfo],
    numbers: Sequence[int],
    alignment: int = ALIGNMENT,
) -> FileLayout:
    """One file, with those of ``tensors`` that have these ``numbers``; its header is padded to the start of the data.

    Parameters
    ----------
    alignment : of tensors; where it is not 32, ``metadata`` says so to readers
    """
    out = [_MAGIC, struct.pack("<IQQ", _VERSION, len(numbers), len(metadata))]
    for key, value in metadata.items():
        out += [_string(key), encode_value(value)]
    places, at = [], 0
    for number in numbers:
        places.append((number, at))
        t = tensors[number]
        dims = t.shape[::-1] or (1,)
        out += [_string(t.name), struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, t.type.id, at)]
        at += t.n_bytes + -t.n_bytes % alignment
    header = b"".join(out)
    header += bytes(-len(header) % alignment)
    return FileLayout(path, header, len(header) + at, [(number, len(header) + offset) for number, offset in places])


def layout(
    path: Path,
    metadata: Metadata,
    tensors: Sequence[TensorInfo],
    *,
    max_bytes: int = 0,
    max_tensors: int = 0,
    empty_first: bool = False,
    shards: Sequence[Sequence[int]] | None = None,
    job_key: str = "",
) -> list[FileLayout]:
    """Lay out the file(s) of a model.

    Parameters
    ----------
    path : final name; shards are called ``<stem>-00001-of-0000N.gguf``
    max_bytes, max_tensors : limits of a shard, 0 = one file
    empty_first : a shard without tensors comes before the others
    shards : numbers of the tensors of every shard, instead of limits
    job_key : identifies the job, in the metadata of every file; empty: not there
    """
    if shards is None:
        shards = [*([[]] if empty_first else []), *split(tensors, max_bytes, max_tensors)]
    files, names = [], part_names(path.stem, len(shards), ".gguf") if len(shards) > 1 else [path.name]
    for index, numbers in enumerate(shards):
        own = Metadata(dict(metadata.values) if index == 0 else {})
        if len(shards) > 1:
            own.u16("split.no", index)
            own.u16("split.count", len(shards))
            own.i32("split.tensors.count", len(tensors))
        if job_key:  # the last key, which it is no more where another program has copied keys and added its own
            own.values.pop("streamconv.job", None)
            own.string("streamconv.job", job_key)
        files.append(file_layout(path.with_name(names[index]), own, tensors, numbers))
    return files
