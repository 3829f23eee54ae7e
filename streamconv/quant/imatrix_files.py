"""Read the two file formats of importance matrices: GGUF, and the older ``.dat``.

A file is mapped, not loaded: the sums are views into it. Sizes and names are checked here, values by ``imatrix.py``.

Layouts, little-endian::

    GGUF    general.type "imatrix"; imatrix.datasets, .chunk_count, .chunk_size
            per matrix two F32 tensors: NAME.in_sum2 [n_mat, n_cols] and NAME.counts [n_mat, 1]
    .dat    i32 n; n times: i32 length, name, i32 calls, i32 n_values, f32[n_values]
            optionally: i32 chunks, i32 length, dataset

Source: llama.cpp ``tools/imatrix`` and ``tools/quantize`` (ggml 0.25.3).
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput, unreadable
from ..metadata import VALUE_TYPES
from ..rows import Bytes, Floats

#: outside of the matrices; a model of 60 layers with 384 experts, each with entries of its own, has 600 000
_MAX_NUMBERS = 1_000_000
_MAX_TEXT_BYTES = 1 << 20


class Shape(NamedTuple):
    """One entry of an importance matrix, before it has values.

    Attributes
    ----------
    name : of the tensor
    n_mat : its experts, or 1; the heads of a tensor of three dimensions count as one matrix, with their columns side by side
    n_cols : columns of each
    """

    name: str
    n_mat: int
    n_cols: int


@dataclass(frozen=True)
class Entry:
    """What one file says of one matrix.

    Attributes
    ----------
    sums : float32[n_mat, n_cols] squared activations, summed; n_mat is 1 where the file does not tell experts apart
    counts : float32[n_mat] how often each matrix was reached
    """

    sums: Floats
    counts: Floats


@dataclass
class ImatrixFile:
    """One importance matrix as stored.

    Attributes
    ----------
    chunk_size : tokens per chunk; None in the older format, which counts chunks instead of tokens
    """

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    chunks: int = 0
    chunk_size: int | None = None


def read_imatrix_file(path: Path) -> ImatrixFile:
    """Read one file of either format.

    Raises
    ------
    InputMissing, NoPermission : the file cannot be opened
    BadInput : it is damaged, or not an importance matrix
    """
    cursor = _Cursor(path)
    return _read_gguf(cursor) if bytes(cursor.data[:4]) == b"GGUF" else _read_dat(cursor)


class _Cursor:
    """Reads forward through a mapped file and knows where it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0
        self._left = _MAX_NUMBERS
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{path} is not a regular file")
            size = status.st_size
            self.data: Bytes = np.asarray(np.memmap(path, np.uint8, "r")) if size else np.empty(0, np.uint8)
        except OSError as e:
            raise unreadable(path, e) from None

    def bad(self, what: str, at: int | None = None) -> BadInput:
        return BadInput(f"{self.path} is damaged at byte {self.at if at is None else at}: {what}")

    def take(self, n: int, what: str) -> Bytes:
        if n < 0 or n > len(self.data) - self.at:
            raise self.bad(f"{what} needs {n} bytes, {max(0, len(self.data) - self.at)} are left")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, code: str, what: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self.bad("it describes more than any importance matrix does")
        return struct.unpack("<" + code, bytes(self.take(struct.calcsize("<" + code), what)))[0]

    def text(self, length: int, what: str) -> str:
        start = self.at
        if length > _MAX_TEXT_BYTES:
            raise self.bad(f"{what} has {length} bytes")
        try:
            return bytes(self.take(length, what)).decode()
        except UnicodeDecodeError:
            raise self.bad(f"{what} is not UTF-8", start) from None

    def string(self, what: str) -> str:
        return self.text(self.number("Q", f"length of {what}"), what)


# -- GGUF --------------------------------------------------------------------------------------------------------------

_TYPE_NAMES = {number: (name, code) for name, (number, code) in VALUE_TYPES.items()}
_F32 = 0


def _read_gguf(cursor: _Cursor) -> ImatrixFile:
    cursor.take(4, "magic")
    version = cursor.number("I", "version")
    if version not in (2, 3):
        raise cursor.bad(f"GGUF version {version} is not supported", 4)
    n_tensors, n_keys = cursor.number("Q", "number of tensors"), cursor.number("Q", "number of keys")
    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        name = cursor.string("a key")
        keys[name] = _value(cursor, name, cursor.number("I", f"type of {name}"))
    infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    path = cursor.path
    wanted = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
    if keys.get("general.type") != "imatrix" or not all(key in keys for key in wanted):
        raise BadInput(
            f"{path} is a GGUF file but not an importance matrix (general.type is {keys.get('general.type')})",
            "--imatrix takes the output of llama-imatrix",
        )
    datasets, chunks, chunk_size = (keys[key] for key in wanted)
    if not isinstance(datasets, list) or not all(isinstance(d, str) for d in datasets):
        raise BadInput(f"{path}: imatrix.datasets is not a list of strings")
    if not (isinstance(chunks, int) and isinstance(chunk_size, int)):
        raise BadInput(f"{path}: imatrix.chunk_count and imatrix.chunk_size must be integers")
    if not 0 <= chunk_size < 1 << 31:
        raise BadInput(f"{path}: imatrix.chunk_size is {chunk_size}, which is no number of tokens")
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise BadInput(f"{path}: general.alignment {alignment} is not a power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, shape, kind, offset, at in infos:
        if not name.endswith((".in_sum2", ".counts")):
            continue
        if name in tensors:
            raise cursor.bad(f"{name} is there twice", at)
        if kind != _F32:
            raise cursor.bad(f"{name} is not F32", at)
        cursor.at = start + offset
        tensors[name] = cursor.take(4 * prod(shape), name).view("<f4").reshape(shape)
    entries = _pair(path, tensors)
    return ImatrixFile(path, entries, datasets, chunks, chunk_size)


def _value(cursor: _Cursor, key: str, number: int) -> Any:
    """One value; arrays become lists."""
    at = cursor.at - 4
    name, code = _TYPE_NAMES.get(number, ("", ""))
    if code:
        return cursor.number(code, key)
    if name == "STRING":
        return cursor.string(key)
    if name != "ARRAY":
        raise cursor.bad(f"{key} has unknown type {number}", at)
    element, n = cursor.number("I", key), cursor.number("Q", key)
    if _TYPE_NAMES.get(element, ("ARRAY", ""))[0] == "ARRAY":
        raise cursor.bad(f"{key} is an array of unsupported type {element}", at)
    # each element takes a byte at least, so a length beyond the file is refused before it is walked
    if n > len(cursor.data) - cursor.at:
        raise cursor.bad(f"{key} has {n} elements, {len(cursor.data) - cursor.at} bytes are left")
    return [_value(cursor, key, element) for _ in range(n)]


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int, int]:
    """Name, shape (slowest first), type, offset, and where in the file this stands."""
    at = cursor.at
    name = cursor.string("a tensor name")
    n_dims = cursor.number("I", name)
    if n_dims > 4:
        raise cursor.bad(f"{name} has {n_dims} dimensions", at)
    dims = [cursor.number("Q", name) for _ in range(n_dims)]
    if any(d < 1 for d in dims):
        raise cursor.bad(f"{name} has a dimension of 0", at)
    return name, tuple(reversed(dims)), cursor.number("I", name), cursor.number("Q", name), at


def _pair(path: Path, tensors: dict[str, NDArray[np.float32]]) -> dict[str, Entry]:
    """Join the sums and counts of each matrix."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    entries = {}
    for name in names:
        sums, counts = tensors.get(f"{name}.in_sum2"), tensors.get(f"{name}.counts")
        if sums is None or counts is None:
            raise BadInput(f"{path}: {name} lacks its {'sums' if sums is None else 'counts'}")
        n_cols = sums.shape[-1] if sums.ndim else 1
        if counts.size != sums.size // n_cols:
            raise BadInput(f"{path}: {name} has {sums.size // n_cols} rows of sums but {counts.size} counts")
        entries[name] = Entry(sums.reshape(-1, n_cols), counts.reshape(-1))
    if not entries:
        raise BadInput(f"{path}: the importance matrix is empty")
    return entries


# -- the older format ------------------------------------------------------------------------------------------------


def _read_dat(cursor: _Cursor) -> ImatrixFile:
    n_entries = cursor.number("i", "the number of entries")
    if n_entries < 1:
        raise BadInput(
            f"{cursor.path} is not an importance matrix, or an empty one: it claims {n_entries} entries",
            "--imatrix takes the output of llama-imatrix",
        )
    result = ImatrixFile(cursor.path)
    for i in range(n_entries):
        what = f"entry {i + 1} of {n_entries}"
        at = cursor.at
        name = cursor.text(cursor.number("i", what), f"the name of {what}")
        calls, n_values = cursor.number("i", name), cursor.number("i", name)
        if n_values < 1:
            raise cursor.bad(f"{name} has {n_values} values", at)
        if name in result.entries:
            raise cursor.bad(f"{name} is there twice", at)
        values = cursor.take(4 * n_values, f"the values of {name}").view("<f4")
        result.entries[name] = Entry(values.reshape(1, -1), np.array([calls], np.float32))
    if cursor.at < len(cursor.data):
        result.chunks = max(0, cursor.number("i", "the number of chunks"))
        result.datasets = [cursor.text(cursor.number("i", "the data set"), "the data set")]
    return result
