"""The container, read strictly: keys, each with a range of the file. See ``quant/sbs/container.py`` for its layout.

Version 1 begins with header and directory. Version 2 begins with a header of no blobs in 256 bytes, and ends with directory and
header. In both, blobs follow each other in the order of the directory. There is no checksum.

Source: gemma.cpp ``io/blob_store.cc`` (October 2025), whose checks these are; it also takes keys that occur twice, and crashes
where the last blob leaves no room for the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...errors import BadInput
from ...quant.sbs.container import BLOB_ALIGNMENT, HEADER_BYTES, KEY_BYTES, MAGIC, MAX_BLOBS, RANGE_BYTES, padded
from ..mapped import MappedFile
from ..naming import shown
from ..placeholders import HEAD_BYTES, other_container, refuse_no_weights

_ENTRY_BYTES = KEY_BYTES + RANGE_BYTES
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
    if file.size < HEADER_BYTES:
        raise BadInput(f"{file.path} is truncated: {file.size} bytes are too few for a header of 16", _AGAIN)
    found = _at_begin(file) or _at_end(file, head)
    if found.size != file.size:
        what = "is truncated" if found.size > file.size else "has bytes behind its end"
        raise BadInput(f"{file.path} {what}: its header says {found.size} bytes, the file has {file.size}", _AGAIN)
    blobs: dict[str, Blob] = {}
    for key, blob in _entries(file, found):
        if key in blobs:
            raise BadInput(
                f"{file.path}: two blobs have the key {shown(key)}, at bytes {blobs[key].offset} and {blob.offset}"
            )
        blobs[key] = blob
    return Store(file, found.version, blobs)


def _header(file: MappedFile, at: int) -> tuple[int, int, int]:
    """Magic, number of blobs, size of the file."""
    magic, n_blobs, low, high = (int(word) for word in file.view(at, HEADER_BYTES).view("<u4"))
    return magic, n_blobs, high << 32 | low


def _at_begin(file: MappedFile) -> _Directory | None:
    """The older layout; None where it is not that."""
    magic, n_blobs, size = _header(file, 0)
    fits = HEADER_BYTES + _ENTRY_BYTES * n_blobs <= file.size
    if magic != MAGIC or not 0 < n_blobs <= MAX_BLOBS or not fits:
        return None
    if n_blobs == MAX_BLOBS:
        raise BadInput(
            f"{file.path}: {n_blobs} blobs, with the directory at the beginning there are fewer than {MAX_BLOBS}"
        )
    return _Directory(1, HEADER_BYTES, n_blobs, size)


def _at_end(file: MappedFile, head: bytes) -> _Directory:
    """The newer layout."""
    at = file.size - HEADER_BYTES
    magic, n_blobs, size = _header(file, at)
    if magic != MAGIC:
        if what := other_container(head):
            raise BadInput(
                f"{file.path} is not a .sbs file: it is {what}", "Rename it with the extension of its format."
            )
        begins = int.from_bytes(head[:4], "little") == MAGIC
        why = f"is truncated or damaged: the last header, at byte {at}," if begins else f"is not a .sbs file: byte {at}"
        raise BadInput(f"{file.path} {why} does not begin with 'SBS\\n'", _AGAIN)
    if not 0 < n_blobs <= MAX_BLOBS:
        raise BadInput(f"{file.path}: {n_blobs} blobs (byte {at + 4}), there are 1 to {MAX_BLOBS}", _AGAIN)
    at -= _ENTRY_BYTES * n_blobs
    if at < BLOB_ALIGNMENT:
        raise BadInput(
            f"{file.path} is truncated: a directory of {n_blobs} blobs does not fit its {file.size} bytes", _AGAIN
        )
    return _Directory(2, at, n_blobs, size)


def _entries(file: MappedFile, found: _Directory) -> Iterator[tuple[str, Blob]]:
    """Keys and ranges, checked."""
    keys = bytes(file.view(found.at, KEY_BYTES * found.n_blobs))
    ranges_at = found.at + len(keys)
    ranges = np.frombuffer(bytes(file.view(ranges_at, len(keys))), "<u8").reshape(-1, 2)
    expected = BLOB_ALIGNMENT if found.version == 2 else padded(ranges_at + len(keys), BLOB_ALIGNMENT)
    end = found.at if found.version == 2 else file.size
    for n, (offset, n_bytes) in enumerate(ranges.tolist()):
        key = keys[n * KEY_BYTES : (n + 1) * KEY_BYTES].split(b"\0")[0].decode("latin-1")
        where = f"{file.path}: blob {n}, {shown(key)} (directory at byte {ranges_at + RANGE_BYTES * n}),"
        if not key:
            raise BadInput(f"{where} has an empty key")
        if not n_bytes:
            raise BadInput(f"{where} is empty")
        if offset != expected:
            what = (
                f"which is no multiple of {BLOB_ALIGNMENT}"
                if offset % BLOB_ALIGNMENT
                else f"blobs before it end at {expected}"
            )
            raise BadInput(f"{where} begins at byte {offset}, {what}")
        expected = padded(offset + n_bytes, BLOB_ALIGNMENT)
        if expected > end:
            raise BadInput(f"{where} has {n_bytes} bytes from {offset} on, past the end of the data at {end}", _AGAIN)
        yield key, Blob(offset, n_bytes)
