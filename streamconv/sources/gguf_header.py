"""The header of a GGUF file: metadata and tensor infos.

Layout (all little-endian): magic ``GGUF``, version u32, tensor count u64, key count u64; then per key its name, a type u32
and the value; then per tensor its name, u32 n_dims, n_dims × u64 (fastest first), type u32, offset u64. A string is a u64
length and UTF-8 bytes, an array an element type u32, a u64 count and the elements. Data begin at the next multiple of the
alignment.

A header is read whole, so it has limits: a sparse file that claims a billion tokens costs nothing to make. They are several times
what the largest vocabularies take.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, overload

import numpy as np

from ..errors import BadInput
from ..metadata import VALUE_TYPES, Metadata, Value
from ..quant.types import BY_ID, TensorType
from .mapped import MappedFile
from .naming import shown
from .placeholders import HEAD_BYTES, other_container, refuse_no_weights

DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_MAX_NAME_BYTES = 65535
#: the least a key/value pair and a tensor info can take, to refuse absurd counts before looping
_MIN_PAIR_BYTES = 8 + 4 + 1
_MIN_INFO_BYTES = 8 + 4 + 4 + 8
_BY_NUMBER = {number: (name, code) for name, (number, code) in VALUE_TYPES.items()}
_FIRST_WINDOW_BYTES = 4 << 20
#: vocabularies of 262 144 tokens with merges have headers of 18 MB, which become 40 MB of objects
_MAX_HEADER_BYTES = 64 << 20
_MAX_TEXT_BYTES = 24 << 20
_MAX_MEMORY_BYTES = 96 << 20
#: memory and time that these take, in bytes
_PAIR_COST, _INFO_COST, _TEXT_COST, _NUMBER_COST = 1000, 1500, 24, 40
_U64 = struct.Struct("<Q")


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as the header lists it.

    Attributes
    ----------
    shape : slowest dimension first
    offset : bytes from the start of the data
    n_bytes : bytes of data, without padding
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """A parsed header; ``data_start`` is the offset that tensor offsets count from.

    ``not_utf8`` names the texts that are not UTF-8, where these are taken: what is invalid in them is replaced.
    """

    version: int
    metadata: Metadata
    tensors: dict[str, GgufTensor]
    alignment: int
    data_start: int
    not_utf8: tuple[str, ...] = ()


class StringArray(Sequence[str]):
    """Texts that stay in the file until asked for; a vocabulary then costs 8 bytes per token.

    Parameters
    ----------
    buffer : the bytes of the file
    starts : offset of each text's length field
    where : file and key, for messages
    """

    def __init__(self, buffer: memoryview, starts: array[int], where: str) -> None:
        self._buffer = buffer
        self._starts = starts
        self._where = where

    @property
    def packed(self) -> memoryview:
        """All texts with their lengths, as the file has them, UTF-8 or not."""
        if not self._starts:
            return self._buffer[:0]
        last = self._starts[-1]
        return self._buffer[self._starts[0] : last + 8 + _U64.unpack_from(self._buffer, last)[0]]

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._starts[index]
        (length,) = _U64.unpack_from(self._buffer, start)
        try:
            return str(self._buffer[start + 8 : start + 8 + length], "utf-8")
        except UnicodeDecodeError:
            raise BadInput(f"{self._where}: element {index} is not UTF-8") from None

    def __iter__(self) -> Iterator[str]:
        buffer, length_at = self._buffer, _U64.unpack_from
        for index, start in enumerate(self._starts):
            end = start + 8 + length_at(buffer, start)[0]
            try:
                yield str(buffer[start + 8 : end], "utf-8")
            except UnicodeDecodeError:
                raise BadInput(f"{self._where}: element {index} is not UTF-8") from None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringArray({len(self)} texts, {self._where})"


class _WindowEnds(Exception):
    """The header goes on behind the bytes that were read."""


class _Cursor:
    """Reads fields one after the other from the first ``window`` bytes and knows where the file ends."""

    def __init__(self, file: MappedFile, window: int, lenient: bool) -> None:
        self.not_utf8: list[str] | None = [] if lenient else None
        self.path = file.path
        self.size = file.size
        self.buffer = file.view(0, window).data
        self.at = 0
        self._memory_bytes = _MAX_MEMORY_BYTES

    def bad(self, what: str) -> BadInput:
        return BadInput(f"{self.path}: {what} (header byte {self.at})")

    @property
    def left(self) -> int:
        return self.size - self.at

    def need(self, n_bytes: int, what: str) -> None:
        """Be sure that so many bytes follow."""
        if n_bytes > self.left:
            raise self.bad(f"truncated: {what} is past the end of the file")
        if self.at + n_bytes > _MAX_HEADER_BYTES:
            raise self.bad(f"{what} is past the limit of {_MAX_HEADER_BYTES} bytes for headers")
        if self.at + n_bytes > len(self.buffer):
            raise _WindowEnds

    def charge(self, n_bytes: int) -> None:
        """Count what is made of the header."""
        self._memory_bytes -= n_bytes
        if self._memory_bytes < 0:
            raise self.bad("the header describes more than any model needs")

    def scalar(self, code: str, what: str) -> Any:
        size = struct.calcsize(f"<{code}")
        self.need(size, what)
        (value,) = struct.unpack_from(f"<{code}", self.buffer, self.at)
        self.at += size
        return value

    def text(self, what: str, limit: int = _MAX_TEXT_BYTES) -> str:
        length = self.scalar("Q", what)
        if limit < length <= self.left:
            raise self.bad(f"string length {length} of {what} is over the limit of {limit}")
        self.need(length, f"string length {length} of {what}")
        self.charge(length)
        self.at += length
        try:
            found = str(self.buffer[self.at - length : self.at], "utf-8")
        except UnicodeDecodeError:
            if self.not_utf8 is None:
                raise self.bad(f"{what} is not UTF-8") from None
            self.not_utf8.append(what)
            found = str(self.buffer[self.at - length : self.at], "utf-8", "replace")
        self.charge(0 if found.isascii() else 3 * length)
        return found

    def value(self, key: str) -> Value:
        what = f"metadata value {shown(key)}"
        name, code = self._type(what)
        if name == "STRING":
            return Value(name, self.text(what))
        if name == "ARRAY":
            return self._array(what)
        return Value(name, self.scalar(code, what))

    def _type(self, what: str) -> tuple[str, str]:
        number = self.scalar("I", what)
        if number not in _BY_NUMBER:
            raise self.bad(f"{what} has unknown value type {number}")
        return _BY_NUMBER[number]

    def _array(self, what: str) -> Value:
        elem, code = self._type(f"array of {what}")
        if elem == "ARRAY":
            raise self.bad(f"{what} is an array of arrays; nested arrays are not supported")
        count = self.scalar("Q", what)
        self.need(count * (struct.calcsize(f"<{code}") or 8), f"array of {count} elements in {what}")
        self.charge(count * (_TEXT_COST if elem == "STRING" else _NUMBER_COST))
        if elem == "STRING":
            return Value("ARRAY", self._strings(count, what), elem)
        numbers = np.frombuffer(self.buffer, np.dtype(f"<{'u1' if code == '?' else code}"), count, self.at)
        self.at += numbers.nbytes
        return Value("ARRAY", (numbers != 0 if code == "?" else numbers).tolist(), elem)

    def _strings(self, count: int, what: str) -> StringArray:
        """Walk over ``count`` texts without decoding them."""
        starts = array("Q", bytes(8 * count))
        at, last, length_at = self.at, len(self.buffer) - 8, _U64.unpack_from
        for i in range(count):
            if at > last:
                break
            starts[i] = at
            at += 8 + length_at(self.buffer, at)[0]
        else:
            self.need(at - self.at, f"a string of {what}")
            self.at = at
            return StringArray(self.buffer, starts, f"{self.path}: {what}")
        self.need(at + 8 - self.at, f"element {i} of {what}")
        raise AssertionError  # ``at + 8`` is past the window, so ``need`` has raised


def parse_header(file: MappedFile, lenient: bool = False) -> GgufHeader:
    """Parse and check everything before the data; ``lenient`` takes texts that are not UTF-8.

    Errors: BadInput names the file, the key or tensor and the byte.
    """
    # How long the header is turns out on reading it. A mapping covers the file for free; copies begin small and grow.
    window = file.size if file.io == "mmap" else min(file.size, _FIRST_WINDOW_BYTES)
    while True:
        try:
            return _parse(_Cursor(file, window, lenient))
        except _WindowEnds:
            window = min(file.size, window * 4)


def _parse(cursor: _Cursor) -> GgufHeader:
    version, n_tensors, n_pairs = _preamble(cursor)
    metadata = Metadata()
    for _ in range(n_pairs):
        cursor.charge(_PAIR_COST)
        key = cursor.text("a metadata key", _MAX_NAME_BYTES)
        if key in metadata:
            raise cursor.bad(f"duplicate metadata key {shown(key)}")
        # Past ``Metadata.add``: a reader shows empty values too.
        metadata.values[key] = cursor.value(key)
    alignment = _alignment(cursor, metadata)
    tensors: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        cursor.charge(_INFO_COST)
        info = _tensor_info(cursor, alignment)
        if info.name in tensors:
            raise cursor.bad(f"duplicate tensor {shown(info.name)}")
        tensors[info.name] = info
    start = -(-cursor.at // alignment) * alignment
    return GgufHeader(version, metadata, tensors, alignment, start, tuple(cursor.not_utf8 or ()))


def _preamble(cursor: _Cursor) -> tuple[int, int, int]:
    """Version, tensor count and key count."""
    magic = bytes(cursor.buffer[:4])
    if magic != b"GGUF":
        head = bytes(cursor.buffer[:HEAD_BYTES])
        refuse_no_weights(cursor.path, head)
        raise BadInput(f"{cursor.path} is not a GGUF file: {other_container(head) or f'its magic is {magic!r}'}")
    cursor.at = 4
    version = cursor.scalar("I", "the header")
    if not version & 0xFFFF:
        raise cursor.bad(f"big-endian file (version field {version:#010x}); only little-endian files are read")
    if version not in (2, 3):
        raise cursor.bad(f"GGUF version {version}; only 2 and 3 are read")
    n_tensors, n_pairs = cursor.scalar("Q", "the header"), cursor.scalar("Q", "the header")
    if n_pairs * _MIN_PAIR_BYTES + n_tensors * _MIN_INFO_BYTES > cursor.left:
        raise cursor.bad(
            f"truncated: {n_pairs} metadata entries and {n_tensors} tensors do not fit in a file of {cursor.size} bytes"
        )
    return version, n_tensors, n_pairs


def _alignment(cursor: _Cursor, metadata: Metadata) -> int:
    found = metadata.values.get("general.alignment")
    if found is None:
        return DEFAULT_ALIGNMENT
    if found.type != "UINT32" or found.value < 1 or found.value & (found.value - 1):
        raise cursor.bad(f"general.alignment is {found.type} {found.value!r}; it must be a UINT32 power of two")
    return int(found.value)


def _tensor_info(cursor: _Cursor, alignment: int) -> GgufTensor:
    name = cursor.text("a tensor name", _MAX_NAME_BYTES)
    what = f"tensor {shown(name)}"
    n_dims = cursor.scalar("I", what)
    if n_dims > _MAX_DIMENSIONS:
        raise cursor.bad(f"{what} has {n_dims} dimensions, more than {_MAX_DIMENSIONS}")
    sizes = [cursor.scalar("Q", what) for _ in range(n_dims)]
    number = cursor.scalar("I", what)
    offset = cursor.scalar("Q", what)
    if number not in BY_ID:
        raise cursor.bad(f"{what} has tensor type {number}, which is unknown or was removed from ggml")
    if 0 in sizes:
        raise cursor.bad(f"{what} has a zero dimension: {sizes}")
    if prod(sizes) >= 2**63:
        raise cursor.bad(f"{what}: dimensions {sizes} overflow 64 bits")
    tensor_type = BY_ID[number]
    n_cols = sizes[0] if sizes else 1
    if n_cols % tensor_type.block_size:
        raise cursor.bad(
            f"{what}: rows of {n_cols} are not whole blocks of {tensor_type.name} ({tensor_type.block_size})"
        )
    if offset % alignment:
        raise cursor.bad(f"{what}: offset {offset} is not aligned to {alignment}")
    n_bytes = prod(sizes) // tensor_type.block_size * tensor_type.block_bytes
    return GgufTensor(name, tuple(reversed(sizes)), tensor_type, offset, n_bytes)
