"""The container (BlobStore), read strictly: keys of up to 16 bytes, each with a range of the file.

    header     magic u32 "SBS\\n", number of blobs u32, size of the file u64
    directory  keys, 16 bytes each, padded with zeros; then for each key u64 offset, u64 bytes

The older layout begins with header and directory. The newer one begins with a header of no blobs, and ends with directory and
header. In both, blobs follow each other in the order of the directory, each at the next multiple of 256. There is no checksum.

Source: gemma.cpp ``io/blob_store.cc`` (October 2025), whose checks these are; it also takes keys that occur twice, and crashes
where the last blob leaves no room for the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...errors import BadInput
from ..mapped import MappedFile
from ..naming import shown
from ..placeholders import HEAD_BYTES, other_container, refuse_no_weights

_MAGIC, _HEADER_BYTES, _KEY_BYTES, _ENTRY_BYTES = 0x0A534253, 16, 16, 32
_ALIGNMENT, _MAX_BLOBS = 256, 16 << 10
_AGAIN = "Fetch this file again."


class Blob(NamedTuple):
    """``n_bytes`` of the file from ``offset`` on."""

    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Store:
    """A file and what is in it.

    Attributes
    ----------
    file : the bytes
    version : 1: the directory is at the beginning; 2: at the end
    blobs : ranges by key, in the order of the directory; keys are Latin-1, so that any bytes have a text
    """

    file: MappedFile
    version: int
    blobs: dict[str, Blob]

    @property
    def first(self) -> int:
        """Where the first blob begins."""
        return next(iter(self.blobs.values())).offset

    def read(self, key: str, most: int) -> bytes:
        """The bytes of a blob.

        Raises
        ------
        BadInput : it has more than ``most``
        """
        offset, n_bytes = self.blobs[key]
        if n_bytes > most:
            raise BadInput(
                f"{self.file.path}: blob {shown(key)} at byte {offset} has {n_bytes} bytes, over the limit of {most}"
            )
        return bytes(self.file.view(offset, n_bytes))


class _Directory(NamedTuple):
    version: int
    at: int
    n_blobs: int
    size: int


def read_store(file: MappedFile) -> Store:
    """Parse and check header and directory of ``file``.

    Raises
    ------
    BadInput : what gemma.cpp refuses; names file, byte and key
    """
    refuse_no_weights(file.path, head := bytes(file.view(0, min(file.size, HEAD_BYTES))))
    if file.size < _HEADER_BYTES:
        raise BadInput(f"{file.path} is truncated: {file.size} bytes are too few for a header of 16", _AGAIN)
    found = _at_begin(file) or _at_end(file, head)
    if found.size != file.size:
        what = "is truncated" if found.size > file.size else "has bytes behind its end"
        raise BadInput(f"{file.path} {what}: its header says {found.size} bytes, the file has {file.size}", _AGAIN)
    blobs: dict[str, Blob] = {}
    for key, blob in _entries(file, found):
        if key in blobs:
            raise BadInput(f"{file.path}: two blobs have the key {shown(key)}, at bytes {blobs[key].offset} and {blob.offset}")
        blobs[key] = blob
    return Store(file, found.version, blobs)


def _header(file: MappedFile, at: int) -> tuple[int, int, int]:
    """Magic, number of blobs, size of the file."""
    magic, n_blobs, low, high = (int(word) for word in file.view(at, _HEADER_BYTES).view("<u4"))
    return magic, n_blobs, high << 32 | low


def _at_begin(file: MappedFile) -> _Directory | None:
    """The older layout; None where it is not that."""
    magic, n_blobs, size = _header(file, 0)
    fits = _HEADER_BYTES + _ENTRY_BYTES * n_blobs <= file.size
    if magic != _MAGIC or not 0 < n_blobs <= _MAX_BLOBS or not fits:
        return None
    if n_blobs == _MAX_BLOBS:
        raise BadInput(f"{file.path}: {n_blobs} blobs, with the directory at the beginning there are fewer than {_MAX_BLOBS}")
    return _Directory(1, _HEADER_BYTES, n_blobs, size)


def _at_end(file: MappedFile, head: bytes) -> _Directory:
    """The newer layout."""
    at = file.size - _HEADER_BYTES
    magic, n_blobs, size = _header(file, at)
    if magic != _MAGIC:
        if what := other_container(head):
            raise BadInput(f"{file.path} is not a .sbs file: it is {what}", "Rename it with the extension of its format.")
        begins = int.from_bytes(head[:4], "little") == _MAGIC
        why = f"is truncated or damaged: the last header, at byte {at}," if begins else f"is not a .sbs file: byte {at}"
        raise BadInput(f"{file.path} {why} does not begin with 'SBS\\n'", _AGAIN)
    if not 0 < n_blobs <= _MAX_BLOBS:
        raise BadInput(f"{file.path}: {n_blobs} blobs (byte {at + 4}), there are 1 to {_MAX_BLOBS}", _AGAIN)
    at -= _ENTRY_BYTES * n_blobs
    if at < _ALIGNMENT:
        raise BadInput(f"{file.path} is truncated: a directory of {n_blobs} blobs does not fit its {file.size} bytes", _AGAIN)
    return _Directory(2, at, n_blobs, size)


def _entries(file: MappedFile, found: _Directory) -> Iterator[tuple[str, Blob]]:
    """Keys and ranges, checked."""
    keys = bytes(file.view(found.at, _KEY_BYTES * found.n_blobs))
    ranges_at = found.at + len(keys)
    ranges = np.frombuffer(bytes(file.view(ranges_at, len(keys))), "<u8").reshape(-1, 2)
    expected = _ALIGNMENT if found.version == 2 else _rounded(ranges_at + len(keys))
    end = found.at if found.version == 2 else file.size
    for n, (offset, n_bytes) in enumerate(ranges.tolist()):
        key = keys[n * _KEY_BYTES : (n + 1) * _KEY_BYTES].split(b"\0")[0].decode("latin-1")
        where = f"{file.path}: blob {n}, {shown(key)} (directory at byte {ranges_at + 16 * n}),"
        if not key:
            raise BadInput(f"{where} has an empty key")
        if not n_bytes:
            raise BadInput(f"{where} is empty")
        if offset != expected:
            what = f"which is no multiple of {_ALIGNMENT}" if offset % _ALIGNMENT else f"blobs before it end at {expected}"
            raise BadInput(f"{where} begins at byte {offset}, {what}")
        expected = _rounded(offset + n_bytes)
        if expected > end:
            raise BadInput(f"{where} has {n_bytes} bytes from {offset} on, past the end of the data at {end}", _AGAIN)
        yield key, Blob(offset, n_bytes)


def _rounded(n: int) -> int:
    return -(-n // _ALIGNMENT) * _ALIGNMENT
