"""The container of gemma.cpp's weight files, a store of blobs by key: where each lies, and the bytes before the first.

    header      16 bytes: magic, number of blobs, bytes of the file
    directory   the keys, 16 bytes each; then of each key offset and length, 16 bytes
    blobs       each at a multiple of 256 bytes, back to back
    zeros       up to a multiple of 64 KiB

All little endian. This is version 1, which every loader reads; version 2 has header and directory at the end, for writers that do
not know them before.

Source: gemma.cpp ``io/blob_store.cc`` (October 2025).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from ...errors import BadInput

#: the bytes ``SBS\\n`` as u32
MAGIC = 0x0A534253
#: of the header, of a key, and of the place of a blob in the directory
HEADER_BYTES, KEY_BYTES, RANGE_BYTES = 16, 16, 16
#: blobs begin at multiples of the first; files end at multiples of the second
BLOB_ALIGNMENT, FILE_ALIGNMENT = 256, 65536
#: writers have fewer
MAX_BLOBS = 16384
#: keys of what is not a tensor; the value of the tokenizer where there is none
CONFIG, TOKENIZER, TOC, NO_TOKENIZER = "config", "tokenizer", "toc", b"unavailable"
#: key of the blob that names the job that made the file; loaders skip what they do not know
JOB = "streamconv"


class Container(NamedTuple):
    """A file that is laid out.

    Attributes
    ----------
    head : header and directory, up to the first blob
    offsets : key -> where the blob begins
    size : of the file
    """

    head: bytes
    offsets: Mapping[str, int]
    size: int


def padded(n: int, alignment: int) -> int:
    """``n`` rounded up to a multiple of ``alignment``."""
    return -(-n // alignment) * alignment


def laid_out(blobs: Mapping[str, int]) -> Container:
    """The container that holds blobs of these lengths, by their keys, in this order.

    Raises
    ------
    BadInput : a key or a length that it cannot hold, or too many
    """
    if not 0 < len(blobs) < MAX_BLOBS:
        raise BadInput(f"a weight file of gemma.cpp holds up to {MAX_BLOBS - 1} blobs, not {len(blobs)}")
    for key, n in blobs.items():
        if not 0 < len(key.encode()) <= KEY_BYTES or not key.isascii() or "\0" in key:
            raise BadInput(f"key {key!r} has {len(key.encode())} bytes, keys have 1 to {KEY_BYTES} ASCII characters")
        if n < 1:
            raise BadInput(f"blob {key!r} is empty, which no weight file of gemma.cpp can hold")
    at = padded(HEADER_BYTES + (KEY_BYTES + RANGE_BYTES) * len(blobs), BLOB_ALIGNMENT)
    start, offsets = at, dict[str, int]()
    for key, n in blobs.items():
        offsets[key] = at
        at += padded(n, BLOB_ALIGNMENT)
    size = padded(at, FILE_ALIGNMENT)
    keys = b"".join(key.encode().ljust(KEY_BYTES, b"\0") for key in blobs)
    ranges = b"".join(struct.pack("<QQ", offsets[key], n) for key, n in blobs.items())
    head = struct.pack("<IIQ", MAGIC, len(blobs), size) + keys + ranges
    return Container(head.ljust(start, b"\0"), offsets, size)
