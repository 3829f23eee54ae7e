"""The hidden states of all tokens, in two files by turns: a layer reads one and fills the other.

Each file begins with a page that says how many layers its states have gone through, and their digest; it is written when they are
durable. So whenever a run is killed, one of the two is whole, and the next run goes on from there.

Files are mapped: states are page cache, not memory of ours. Their disk space is reserved when they are created, lest a full disk be
found by a signal.
"""

from __future__ import annotations

import mmap
import os
import struct
import weakref
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from ..engine import files
from ..rows import Floats

_PAGE = 4096
_STAMP = struct.Struct("<8sq32s16s")
_CRC = struct.Struct("<I")
_MAGIC = b"SCVSTATE"


def states_bytes(shape: tuple[int, int, int]) -> int:
    """Disk space of both files."""
    return 2 * (_PAGE + 4 * int(np.prod(shape)))


class States:
    """The states of one model.

    Parameters
    ----------
    paths : of the two files
    shape : chunks, tokens a chunk, numbers a token
    fingerprint : 32 bytes; what other jobs wrote does not count
    durable : whether states are to outlive the process

    Attributes
    ----------
    n_layers : layers that ``current`` has gone through; -1: it holds nothing yet
    """

    def __init__(
        self, paths: Iterable[Path], shape: tuple[int, int, int], fingerprint: bytes, durable: bool = True
    ) -> None:
        self._fingerprint, self._durable = fingerprint, durable
        paths = list(paths)
        self._files = [_StateFile(path, shape) for path in paths]
        if durable:
            files.sync_dir(paths[0].parent)
        self._current, self.n_layers = 0, -1

    @property
    def current(self) -> Floats:
        """float32[shape] what the next layer reads."""
        return self._files[self._current].states

    @property
    def following(self) -> Floats:
        """float32[shape] what it fills."""
        return self._files[1 - self._current].states

    @property
    def digest(self) -> bytes:
        """16 bytes: digest of ``current``, where states outlive the process."""
        return self._files[self._current].digest

    def restore(self, most: int) -> int:
        """Take up the file whose states are intact and have gone through the most layers, ``most`` at most; how many.

        -1 where there is none.
        """
        stamps = [(file.stamped(self._fingerprint), n) for n, file in enumerate(self._files)]
        for n_layers, n in sorted(stamps, reverse=True):
            if 0 <= n_layers <= most and self._files[n].is_intact():
                self._current, self.n_layers = n, n_layers
                return n_layers
        self.n_layers = -1
        return -1

    def filled(self) -> None:
        """``following`` is complete: make it durable and the current one."""
        if self._durable:
            self._files[1 - self._current].stamp(self.n_layers + 1, self._fingerprint)
        self._current, self.n_layers = 1 - self._current, self.n_layers + 1

    def settle(self) -> None:
        """No layer follows: let go of the file that is not the current one."""
        self._files = [self._files[self._current]]
        self._current = 0

    def close(self) -> None:
        """Let go of the files; arrays of them must not be used any more."""
        self._files = []


class _StateFile:
    """One of the two files."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path = path
        size = _PAGE + 4 * int(np.prod(shape))
        self._fd = files.open_or_create(path)
        weakref.finalize(self, os.close, self._fd)
        if os.fstat(self._fd).st_size != size:
            files.allocate(self._fd, size, path)
        self._map = mmap.mmap(self._fd, size)
        self.states: Floats = np.frombuffer(self._map, np.float32, offset=_PAGE).reshape(shape)

    def stamped(self, fingerprint: bytes) -> int:
        """The layers that the states went through, as the file says; -1 where it says nothing, or is of another job."""
        page = self._map[:_PAGE]
        magic, n_layers, job, _ = _STAMP.unpack_from(page)
        whole = _CRC.unpack(page[-_CRC.size :])[0] == zlib.crc32(page[: -_CRC.size])
        return int(n_layers) if whole and magic == _MAGIC and job == fingerprint else -1

    @property
    def digest(self) -> bytes:
        """Of the states that the file was stamped for."""
        digest: bytes = _STAMP.unpack_from(self._map[:_PAGE])[3]
        return digest

    def is_intact(self) -> bool:
        """Whether the states are those that the file was stamped for."""
        return self.digest == self._digest()

    def stamp(self, n_layers: int, fingerprint: bytes) -> None:
        """Make the states durable, then say how many layers they went through."""
        files.sync_data(self._fd, self._path, self._map)
        page = _STAMP.pack(_MAGIC, n_layers, fingerprint, self._digest()).ljust(_PAGE - _CRC.size, b"\0")
        files.pwrite_all(self._fd, page + _CRC.pack(zlib.crc32(page)), 0, self._path)
        files.sync_data(self._fd, self._path)

    def _digest(self) -> bytes:
        return xxhash.xxh3_128(self.states.reshape(-1).data).digest()
