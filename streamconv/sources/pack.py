"""Files of a packed checkpoint, read in place; what lies in them is in ``pack_format``.

Frames are unpacked when a byte of theirs is asked for, and kept in the job's ``FrameCache``, so rows that follow each other
unpack none twice. Unpacking takes one frame's memory a thread besides.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..kernels import load
from ..rows import Bytes
from .frame_cache import FrameCache, empty
from .mapped import IoMode
from .pack_format import FRAME_BYTES, Facts, read_facts
from .zstd import Sizes, ZstdFile
from .zstd_frames import Frames

_own = threading.local()


class PackFile(ZstdFile):
    """A packed file with the interface of ``MappedFile``: offsets and ``size`` are those of its content.

    Parameters
    ----------
    path, io, cache : see ``ZstdFile``

    Attributes
    ----------
    facts : what it says of the plain file

    Errors: as ``ZstdFile``.
    """

    facts: Facts

    def __init__(self, path: Path, io: IoMode, cache: FrameCache) -> None:
        self._planes = np.empty(0, np.bool_)
        super().__init__(path, io, cache)

    def _read_frames(self, most: int) -> Frames:
        frames = super()._read_frames(most)
        self.facts = read_facts(self._packed, frames)
        self._planes = np.zeros(len(frames.sizes), np.bool_)
        for start, stop in self.facts.planes:
            self._planes[start:stop] = True
        return frames

    def _how_to_split(self) -> str:
        return "Or unpack it: streamconv unpack."

    def _beside(self, sizes: Sizes, packed: Sizes) -> Sizes:
        """The planes, beside what any frame takes."""
        return super()._beside(sizes, packed) + sizes

    def _decompressed(self, number: int) -> Bytes:
        if not self._planes[number]:
            return super()._decompressed(number)
        start, stop = (int(at) for at in self._frames.content_at[number : number + 2])
        planes, out = scratch()[: stop - start], empty(stop - start)
        self._decompress(number, planes)
        load(".sources.kernels.planes").join(planes, out)
        return out

    def digest(self, looked: Callable[[int], object]) -> str:
        """The sha256 of the content as it is on the disk now; ``looked`` is told of bytes that were read, and may raise.

        Errors: BadInput for damage.
        """
        found, buffer = hashlib.sha256(), np.empty(FRAME_BYTES, np.uint8)
        for at in range(0, self.size, FRAME_BYTES):
            data = buffer[: min(FRAME_BYTES, self.size - at)]
            self.read_into(at, data)
            self.release(at, len(data))
            found.update(data.data)
            looked(len(data))
        return found.hexdigest()

    def sample(self, data_start: int) -> str:
        """As of the plain file; known, where that was described in the same way."""
        return self.facts.sample if data_start == self.facts.data_start else super().sample(data_start)


def scratch() -> Bytes:
    """Memory of this thread for one frame."""
    found: Bytes | None = getattr(_own, "frame", None)
    if found is None:
        found = _own.frame = np.empty(FRAME_BYTES, np.uint8)
    return found
