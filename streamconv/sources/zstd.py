"""Files of weights that are compressed with Zstandard, read as if they were not.

Frames are decompressed when a byte of theirs is asked for, and kept in a ``FrameCache``. A file of a single frame has to be
decompressed whole; it then stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..errors import BadInput, NoResources
from ..file_names import plain_name
from ..rows import Bytes, File, Json
from .checkpoint import InputFile
from .frame_cache import FrameCache, empty
from .mapped import IoMode, MappedFile
from .zstd_frames import Frames, how_to_split, read_frames

Sizes = NDArray[np.int64]

#: what stands for the size of a frame that does not state it
_UNKNOWN_SIZE = (1 << 64) - 1
#: of the cache, for each frame of a file: what is known of it takes 24
_BYTES_PER_FRAME = 256


@dataclass(frozen=True)
class PackedInput(InputFile):
    """A compressed file: what lies on the disk, and the digest of a sample of its content.

    Attributes
    ----------
    content_size : bytes of its content
    """

    content_size: int = 0

    @property
    def content(self) -> tuple[str, int, str]:
        """See ``InputFile.content``: that of the plain file, so that both give the same output."""
        return plain_name(self.name), self.content_size, self.digest


class ZstdFile(MappedFile):
    """A compressed file with the interface of ``MappedFile``: offsets and ``size`` are those of its content.

    Parameters
    ----------
    path : the compressed file, which messages name
    io : how the compressed file is read; the content is always copied
    cache : where decompressed frames are kept

    Errors: as ``MappedFile``; BadInput also for damage, and for frames that ``cache`` has no room for.
    """

    def __init__(self, path: Path, io: IoMode, cache: FrameCache) -> None:
        self.path = path
        self.io = "pread"
        self.cache = cache
        self._packed = MappedFile(path, io)
        self._frames = self._read_frames(cache.limit // _BYTES_PER_FRAME)
        self.size = int(self._frames.content_at[-1])
        self._input = self._packed.describe(0)
        #: bytes of frames that were released in part
        self._released: dict[int, int] = {}
        self._number, single = self._admit()
        if single is not None:  # decompressed once, and never given up
            self._kept = self._frame(single)
            self._kept.__enter__()

    @property
    def stored_bytes(self) -> int:
        """Size of the compressed file."""
        return self._packed.size

    def identity(self) -> Json:
        """The name of the plain file: see ``PackedInput``."""
        return plain_name(self.path.name)

    def _read_frames(self, most: int) -> Frames:
        """Where the frames lie, of which there may be ``most``."""
        return read_frames(self._packed, most)

    def _admit(self) -> tuple[int, int | None]:
        """The number that the cache knows the file by, and that of the frame where there is only one.

        BadInput where the cache has no room for the largest frame.
        """
        sizes = self._frames.sizes
        costs = sizes + self._beside(sizes, np.diff(self._frames.packed_at))
        largest = int(np.argmax(costs)) if self.size else 0
        size, cost = (int(sizes[largest]), int(costs[largest])) if self.size else (0, 0)
        is_single = np.count_nonzero(sizes) == 1
        number = self.cache.admit(self.size, cost - size if is_single else cost, size if is_single else 0)
        if number is None:
            at, room = int(self._frames.packed_at[largest]), self.cache.room
            what = "it is a single frame" if is_single else f"its frame at byte {at} is too large"
            hint = self._how_to_split()
            raise BadInput(
                f"{self.path}: {what}, whose {size:,} bytes take {cost:,} of memory; half of --ram is {self.cache.limit:,},"
                f" of which {room:,} are free",
                f"Allow --ram {-(-2 * cost // (1 << 20))}MiB for it alone. {hint}",
            )
        return number, largest if is_single else None

    def _how_to_split(self) -> str:
        """What to do where frames are too large."""
        return how_to_split(self.path)

    def _beside(self, sizes: Sizes, packed: Sizes) -> Sizes:
        """Memory for decompressing beside the content: a window where no size is stated, the frame where it is copied."""
        windows = sizes * (not self._frames.sizes_are_stated)
        return windows + packed * (self._packed.io == "pread")

    def view(self, offset: int, length: int) -> Bytes:
        """See ``MappedFile.view``; always a copy."""
        self._check(offset, length)
        out = np.empty(length, np.uint8)
        self.read_into(offset, out)
        out.flags.writeable = False
        return out

    def read_into(self, offset: int, out: Bytes) -> None:
        """See ``MappedFile.read_into``; BadInput names the frame that is damaged."""
        self._check(offset, out.nbytes)
        if not out.nbytes:
            return
        buffer = np.frombuffer(out.data.cast("B"), np.uint8)
        done = 0
        while done < len(buffer):
            at = offset + done
            number = self._frames.at(at)
            start, stop = (int(self._frames.content_at[k]) for k in (number, number + 1))
            n = min(stop - at, len(buffer) - done)
            with self._frame(number) as frame:
                buffer[done : done + n] = frame[at - start : at - start + n]
            done += n

    def prefetch(self, offset: int, length: int) -> None:
        """See ``MappedFile.prefetch``: of the frames that hold these bytes."""
        if length > 0 and 0 <= offset < self.size:
            last = self._frames.at(min(offset + length, self.size) - 1)
            start, stop = (int(self._frames.packed_at[k]) for k in (self._frames.at(offset), last + 1))
            self._packed.prefetch(start, stop - start)

    def release(self, offset: int, length: int) -> None:
        """See ``MappedFile.release``: of the frames that lie in the range; of their compressed bytes, where they end in it."""
        if length <= 0 or not 0 <= offset < self.size:
            return
        end = min(offset + length, self.size)
        first, last = self._frames.at(offset), self._frames.at(end - 1)
        if end < self._frames.content_at[last + 1]:
            last -= 1
        whole = first if offset == self._frames.content_at[first] else first + 1
        self.cache.forget(self._number, range(whole, last + 1))
        self._release_edges({n for n in (first, self._frames.at(end - 1)) if not whole <= n <= last}, offset, end)
        start, stop = int(self._frames.packed_at[first]), int(self._frames.packed_at[last + 1])
        self._packed.release(start, stop - start)

    def unmap(self, offset: int, length: int) -> None:
        """See ``MappedFile.unmap``; frames stay in the cache until it needs their room, lest they are decompressed again."""

    def _release_edges(self, numbers: set[int], offset: int, end: int) -> None:
        """Forget those of these frames of which all ranges together have been released: chunks end within frames."""
        for n in numbers:
            start, stop = (int(at) for at in self._frames.content_at[n : n + 2])
            released = self._released.pop(n, 0) + min(stop, end) - max(start, offset)
            if released < stop - start:
                self._released[n] = released
            else:
                self.cache.forget(self._number, range(n, n + 1))

    def describe(self, data_start: int) -> InputFile:
        """The identity of the compressed file, with the digest that the plain one would have."""
        return PackedInput(**{**vars(self._input), "digest": self.sample(data_start)}, content_size=self.size)

    def _frame(self, number: int) -> AbstractContextManager[Bytes]:
        """The content of one frame."""
        size = np.diff(self._frames.content_at[number : number + 2])
        beside = self._beside(size, np.diff(self._frames.packed_at[number : number + 2]))
        return self.cache.frame(self._number, number, int(size[0]), int(beside[0]), lambda: self._decompressed(number))

    def _decompressed(self, number: int) -> Bytes:
        """Decompress a frame whose size is known to fit."""
        out = empty(int(np.diff(self._frames.content_at[number : number + 2])[0]))
        self._decompress(number, out)
        return out

    def _decompress(self, number: int, out: Bytes) -> None:
        """Fill ``out``, which has the size of the frame's content; its compressed bytes need not stay mapped."""
        import zstandard

        start, stop = (int(at) for at in self._frames.packed_at[number : number + 2])
        size = len(out)
        data = self._packed.view(start, stop - start).data
        try:
            stated = zstandard.get_frame_parameters(data).content_size
            if stated not in (_UNKNOWN_SIZE, size):
                raise self._damaged(start, f"it states a size of {stated} bytes, the seek table one of {size}")
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
                n = reader.readinto(out.data)
                n += len(reader.read(1))  # where there is no more, this reads the frame's own checksum
        except zstandard.ZstdError as e:
            if "not enough memory" in str(e):
                raise NoResources(f"{self.path}: there is not enough memory to decompress {size:,} bytes") from None
            raise self._damaged(start, str(e)) from None
        if n != size:
            raise self._damaged(start, f"it decompresses to {'more' if n > size else n} bytes instead of {size}")
        sums = self._frames.checksums
        if sums is not None and xxhash.xxh64_intdigest(out.data) & 0xFFFFFFFF != sums[number]:
            raise self._damaged(start, "its content has another checksum than the seek table lists")
        self._packed.unmap(start, stop - start)

    def _damaged(self, start: int, why: str) -> BadInput:
        """The error of the frame at byte ``start``; InputChanged where the file was written to."""
        self._input.verify_unchanged()
        return BadInput(f"{self.path}: the frame at byte {start} is damaged: {why}", "Fetch this file again.")


def cache_bytes(files: Iterable[File]) -> int:
    """Memory that decompressed frames of ``files`` will take."""
    return sum(cache.most for cache in {file.cache for file in files if isinstance(file, ZstdFile)})


def packed_sizes(files: Iterable[File]) -> dict[str, int]:
    """What of ``files`` is compressed, JSON-able: how many, their bytes, and those of their content."""
    found = {file for file in files if isinstance(file, ZstdFile)}
    return {
        "files": len(found),
        "bytes": sum(f.stored_bytes for f in found),
        "content_bytes": sum(f.size for f in found),
    }
