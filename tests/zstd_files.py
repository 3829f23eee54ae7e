"""Making compressed files of every kind that people have, and ones that lie."""

from __future__ import annotations

import struct
from pathlib import Path

import xxhash
import zstandard

_TABLE, _TABLE_END = 0x184D2A5E, 0x8F92EAB1


def pieces(data: bytes, frame: int) -> list[bytes]:
    return [data[at : at + frame] for at in range(0, len(data), frame)]


def compressed(part: bytes, *, stated: bool = True, checksum: bool = True) -> bytes:
    """One frame."""
    return zstandard.ZstdCompressor(write_content_size=stated, write_checksum=checksum).compress(part)


def table(entries: list[tuple[int, ...]], *, n: int | None = None, descriptor: int | None = None) -> bytes:
    """A seek table; entries are compressed size, size and, in all or none, a checksum."""
    flags = (0x80 if entries and len(entries[0]) == 3 else 0) if descriptor is None else descriptor
    words = b"".join(struct.pack(f"<{len(e)}I", *e) for e in entries)
    end = struct.pack("<IBI", len(entries) if n is None else n, flags, _TABLE_END)
    return struct.pack("<II", _TABLE, len(words) + len(end)) + words + end


def seekable(data: bytes, frame: int = 5000, *, stated: bool = False, sums: bool = True) -> bytes:
    """As zeekstd and t2sz make it: frames, with or without their sizes, and a seek table, with or without checksums."""
    frames = [compressed(part, stated=stated, checksum=not sums) for part in pieces(data, frame)]
    entries = [
        (len(packed), len(part), *((xxhash.xxh64_intdigest(part) & 0xFFFFFFFF,) if sums else ()))
        for packed, part in zip(frames, pieces(data, frame), strict=True)
    ]
    return b"".join(frames) + table(entries)


def concatenated(data: bytes, frame: int = 5000) -> bytes:
    """Frames that state their sizes, with empty and skippable ones among them."""
    skippable = struct.pack("<II", 0x184D2A50, 3) + b"abc"
    return skippable + (compressed(b"") + skippable).join(compressed(part) for part in pieces(data, frame)) + skippable


def stream(data: bytes, frame: int = 0) -> bytes:
    """As ``zstd FILE`` makes it: one frame that states its size."""
    return compressed(data)


KINDS = {"seekable": seekable, "concatenated": concatenated, "stream": stream}


def pack(path: Path, kind: str = "seekable", frame: int = 5000, keep: bool = False) -> Path:
    """The compressed form of a file, in its place."""
    packed = path.with_name(f"{path.name}.zst")
    packed.write_bytes(KINDS[kind](path.read_bytes(), frame))
    if not keep:
        path.unlink()
    return packed
