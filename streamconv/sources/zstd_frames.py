"""Where the frames of a Zstandard file lie, and how many bytes each becomes.

Told by the seek table of the seekable format, a skippable frame at the end of the file, or else by the frames' own headers,
each of which must then state the size of its content. Either is checked against the length of the file before anything is
decompressed. Not checked here: the blocks' contents.

Source: RFC 8878, section 3; zstd's contrib/seekable_format/zstd_seekable_compression_format.md.
"""

from __future__ import annotations

import shlex
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..file_names import plain_name
from .mapped import MappedFile

_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_TABLE_MAGIC, _TABLE_END_MAGIC = 0x184D2A5E, 0x8F92EAB1
_FOOTER = struct.Struct("<IBI")
_HEAD = struct.Struct("<II")
#: a frame's header without its magic: descriptor, window, dictionary, size of the content
_MOST_HEADER_BYTES = 14
#: blocks that a file may have however small it is, and one more for so many bytes of content: of empty ones it could have billions
_FREE_BLOCKS, _BYTES_PER_BLOCK = 1 << 16, 4096


@dataclass(frozen=True)
class Frames:
    """The frames of a file in their order, skippable ones included: those have no content.

    Attributes
    ----------
    packed_at : int64[n + 1], the offset of each in the file, and where the last one ends
    content_at : int64[n + 1], the same in the content
    checksums : uint32[n], the low half of the XXH64 of each content; None where the file does not list them
    sizes_are_stated : whether the header of every frame states the size of its content
    """

    packed_at: NDArray[np.int64]
    content_at: NDArray[np.int64]
    checksums: NDArray[np.uint32] | None
    sizes_are_stated: bool

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of the content of each."""
        return np.diff(self.content_at)

    def at(self, offset: int) -> int:
        """The number of the frame that holds byte ``offset`` of the content."""
        return int(np.searchsorted(self.content_at, offset, side="right")) - 1


def how_to_split(path: Path) -> str:
    """What to do with a file whose frames are of no use to us."""
    packed, plain = shlex.quote(str(path)), shlex.quote(str(path.with_name(plain_name(path.name))))
    return (
        f"Make seekable frames: zstd -d {packed} && t2sz -r -s 4M -f {plain} (github.com/martinellimarco/t2sz; zeekstd makes"
        " them, too). Or convert the decompressed file."
    )


def read_frames(file: MappedFile, most: int) -> Frames:
    """The frames of ``file``.

    Parameters
    ----------
    most : how many there may be

    Errors: BadInput names the file and the byte.
    """
    return _from_table(file, most) or _from_headers(file, most)


def _from_table(file: MappedFile, most: int) -> Frames | None:
    """What the seek table says; None without one."""
    footer_at = file.size - _FOOTER.size
    if footer_at < _HEAD.size:
        return None
    n, descriptor, magic = _FOOTER.unpack(bytes(file.view(footer_at, _FOOTER.size)))
    if magic != _TABLE_END_MAGIC:
        return None
    if descriptor & 0x7C:
        raise BadInput(f"{file.path}: the seek table (byte {footer_at}) is of a later version of the format")
    _check_count(file, n, most)
    width = 3 if descriptor & 0x80 else 2
    start = footer_at - 4 * width * n
    if start < _HEAD.size or _HEAD.unpack(bytes(file.view(start - _HEAD.size, _HEAD.size))) != (
        _TABLE_MAGIC,
        file.size - start,
    ):
        raise BadInput(f"{file.path}: no seek table of {n} frames begins before its end at byte {footer_at}")
    entries = np.frombuffer(bytes(file.view(start, 4 * width * n)), "<u4").reshape(n, width)
    packed, content = _running(entries[:, 0]), _running(entries[:, 1])
    if packed[-1] != start - _HEAD.size:
        raise BadInput(
            f"{file.path}: the seek table (byte {start}) places {packed[-1]} bytes of frames, there are"
            f" {start - _HEAD.size} before it"
        )
    empty = np.flatnonzero((entries[:, 0] == 0) & (entries[:, 1] > 0))
    if len(empty):
        where = start + 4 * width * int(empty[0])
        raise BadInput(f"{file.path}: the seek table (byte {where}) lists a frame of no bytes that has content")
    return Frames(packed, content, entries[:, 2].copy() if width == 3 else None, sizes_are_stated=False)


def _running(sizes: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Where each begins, and the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64, copy=False)


def _check_count(file: MappedFile, n: int, most: int) -> None:
    if n > most:
        raise BadInput(
            f"{file.path} has more than {most:,} frames, which is more than --ram has room for",
            "Allow more --ram, or make frames of some MiB.",
        )


def _from_headers(file: MappedFile, most: int) -> Frames:
    """What the headers of all frames say, found by going through those of their blocks."""
    walk = _Walk(file)
    packed, content = array("q", [0]), array("q", [0])
    while walk.at < file.size:
        _check_count(file, len(packed), most)
        content.append(content[-1] + walk.frame(content[-1]))
        packed.append(walk.at)
    return Frames(np.array(packed, np.int64), np.array(content, np.int64), None, sizes_are_stated=True)


def sizes_of(file: MappedFile, start: int, stop: int) -> list[int]:
    """Bytes of each frame of those that ``file`` holds from byte ``start`` to ``stop``; each must state its content's size."""
    walk = _Walk(file)
    walk.at = start
    found, content = [], 0
    while walk.at < stop:
        before = walk.at
        content += walk.frame(content)
        found.append(walk.at - before)
    return found


class _Walk:
    """Goes from frame to frame of ``file``; ``at`` is where the next one begins."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.at = 0
        self._blocks = 0
        self._buffer = np.empty(_MOST_HEADER_BYTES, np.uint8)

    def frame(self, before: int) -> int:
        """Go past one frame; the size of its content. ``before``: that of all before it."""
        start = self.at
        magic = self._number(4)
        if magic in _SKIPPABLE:
            self._skip(self._number(4))
            return 0
        if magic != _MAGIC:
            raise BadInput(f"{self.file.path}: no zstd frame begins at byte {start}")
        descriptor = self._number(1)
        if descriptor & 8:
            raise BadInput(f"{self.file.path}: the frame at byte {start} is of a later version of zstd")
        is_single, has_checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
        self._skip((not is_single) + (0, 1, 2, 4)[descriptor & 3])
        width = (is_single, 2, 4, 8)[descriptor >> 6]
        if not width:
            raise BadInput(
                f"{self.file.path}: the frame at byte {start} does not state the size of its content, and there is no seek table",
                how_to_split(self.file.path),
            )
        size = self._number(width) + (256 if width == 2 else 0)
        if before + size >= 1 << 63:
            raise BadInput(
                f"{self.file.path}: the frame at byte {start} states a size of {size}, which overflows 63 bits"
            )
        self._skip_blocks(before + size)
        self._skip(4 * has_checksum)
        return size

    def _skip_blocks(self, content: int) -> None:
        most = _FREE_BLOCKS + content // _BYTES_PER_BLOCK
        is_last = False
        while not is_last:
            head, start = self._number(3), self.at - 3
            is_last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            if kind == 3:
                raise BadInput(f"{self.file.path}: the block at byte {start} is of no known kind")
            self._skip(1 if kind == 1 else size)
            self._blocks += 1
            if self._blocks > most:
                raise BadInput(
                    f"{self.file.path}: there are {self._blocks} blocks up to byte {start}, for so little content"
                )

    def _number(self, width: int) -> int:
        at = self.at
        self._skip(width)
        out = self._buffer[:width]
        self.file.read_into(at, out)
        return int.from_bytes(out.tobytes(), "little")

    def _skip(self, n_bytes: int) -> None:
        if self.at + n_bytes > self.file.size:
            raise BadInput(
                f"{self.file.path} is truncated: a part of {n_bytes} bytes begins at byte {self.at}, the file has"
                f" {self.file.size}",
                "Fetch this file again.",
            )
        self.at += n_bytes
