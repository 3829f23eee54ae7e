"""Files of the hub as sources read them, while they may still be on their way.

How bytes are downloaded is up to the engine, which hands out an ``PartialDownload`` for each file. A reader waits for the bytes
it touches and for no others.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import BadInput, InputChanged, InputMissing
from ...file_names import is_weights
from ...rows import Bytes
from ..checkpoint import InputFile, read_object
from ..mapped import IoMode, MappedFile
from .model import HubFile


class PartialDownload(Protocol):
    """A remote file of which some bytes are here; ``engine.transfer.PartialDownload`` is one."""

    @property
    def path(self) -> Path:
        """Where the bytes are now; exists once any of them is here."""

    @property
    def whole(self) -> bool:
        """Whether all of them are here for good."""

    @property
    def is_evictable(self) -> bool:
        """Whether bytes may be given up again, so that only those that are ``held`` can be relied on."""

    @property
    def amended_ns(self) -> int:
        """When bytes that readers may have seen were replaced; 0 for never."""

    def ensure(self, offset: int, length: int) -> None:
        """Wait until these bytes are here."""

    def held(self, offset: int, length: int) -> AbstractContextManager[None]:
        """``ensure``, and they stay until the block ends."""

    def prefetch(self, offset: int, length: int) -> None:
        """These bytes will be read soon."""

    def is_summed(self, offset: int, length: int) -> bool:
        """Whether these bytes need not be read any more for the digest of the whole file."""

    def claim(self, offset: int, length: int) -> None:
        """These bytes will be read once more."""

    def unclaim(self, offset: int, length: int) -> None:
        """What was made of them is durable."""


@dataclass(frozen=True)
class HubInput(InputFile):
    """A file of the hub as an input: its digest is the one the hub lists, its time that of the last correction.

    Attributes
    ----------
    opened : what the system knew of the file when it was opened, where it was whole then
    """

    partial: PartialDownload = field(kw_only=True)
    opened: os.stat_result | None = field(default=None, kw_only=True)

    def verify_unchanged(self) -> bool:
        """InputChanged when bytes that were read already had to be replaced, or a file that was whole is not what it was."""
        if self.opened is not None:
            try:
                is_same = _facts(os.stat(self.partial.path)) == _facts(self.opened)
            except OSError as e:
                raise InputChanged(f"{self.partial.path} is gone: {e.strerror}") from None
            if not is_same:
                raise InputChanged(f"{self.partial.path} changed while it was being read")
        if self.partial.amended_ns != self.mtime_ns:
            raise InputChanged(
                f"{self.path}: bytes that were read before were corrupt and have been replaced",
                "Run the same command again: it starts the output over.",
            )
        return False


class PartialFile(MappedFile):
    """A remote file with the interface of ``MappedFile``; waits for the bytes that are asked for.

    Parameters
    ----------
    path : what messages call it
    file : as the hub lists it

    Attributes
    ----------
    partial : provides its bytes

    Errors: BadInput for an empty file, and whatever ends the transfer.
    """

    def __init__(self, path: Path, file: HubFile, partial: PartialDownload, io: IoMode = "mmap") -> None:
        if not file.size:
            raise BadInput(f"{path} is truncated: the hub lists it with 0 bytes")
        partial.ensure(0, 1)
        where = partial.path
        super().__init__(where, io)
        self.path = path
        if self.size != file.size:
            raise BadInput(f"{partial.path} has {self.size} bytes, the hub lists {file.size}", "Remove it.")
        self._file, self.partial = file, partial
        self._opened = os.fstat(self._fd) if partial.whole and partial.path == where else None

    @property
    def pin(self) -> bytes:
        """The digest that the hub lists, and when bytes that readers may have seen were last replaced."""
        return f"{self._file.digest} {self.partial.amended_ns}".encode()

    def view(self, offset: int, length: int) -> Bytes:
        """See ``MappedFile.view``; a copy where the bytes may be given up."""
        if self.partial.is_evictable and not self.partial.whole:
            out = np.empty(length, np.uint8)
            self.read_into(offset, out)
            out.flags.writeable = False
            return out
        self._check(offset, length)
        self.partial.ensure(offset, length)
        return super().view(offset, length)

    def read_into(self, offset: int, out: Bytes) -> None:
        """See ``MappedFile.read_into``."""
        self._check(offset, out.nbytes)
        with self.partial.held(offset, out.nbytes):
            super().read_into(offset, out)

    def prefetch(self, offset: int, length: int) -> None:
        """Fetch these bytes before others, or read them into the page cache where they are here."""
        if self.partial.whole:
            super().prefetch(offset, length)
        else:
            self.partial.prefetch(offset, length)

    def release(self, offset: int, length: int) -> None:
        """See ``MappedFile.release``; what has not gone into the file's digest yet stays cached, or it would be read from disk."""
        self._release(offset, length, cached=not self.partial.is_summed(offset, length))

    def describe(self, data_start: int) -> InputFile:
        """The file's identity; the digest is of the whole content, so nothing needs to be read.

        The header stays here, so that the same command finds it again.
        """
        self.partial.claim(0, data_start)
        return HubInput(
            name=self.path.name, path=self.path, size=self.size, digest=self._file.digest, device=0, inode=0,
            mtime_ns=self.partial.amended_ns, partial=self.partial, opened=self._opened,
        )  # fmt: skip


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class HubFiles:
    """Some files of a commit as a folder; see ``sources.folder.Files``.

    Parameters
    ----------
    path : what messages call the folder
    listed : the files by their names
    partial : the same, on their way
    packed : those that are kept packed
    """

    def __init__(
        self,
        path: Path,
        listed: Mapping[str, HubFile],
        partial: Mapping[str, PartialDownload],
        io: IoMode = "mmap",
        packed: Mapping[str, MappedFile] | None = None,
    ) -> None:
        self.path = path
        self._listed, self._partial, self._io, self._packed = listed, partial, io, packed or {}

    def names(self) -> Collection[str]:
        """See ``Files``."""
        return [name for name in self._listed if "/" not in name or not is_weights(name)]

    def has(self, name: str) -> bool:
        """See ``Files``."""
        return name in self._listed

    def read_object(self, name: str) -> dict[str, Any]:
        """See ``Files``; the file must be whole."""
        if name not in self._partial:
            raise InputMissing(f"{self.path / name} is not there")
        return read_object(self._partial[name].path)

    def open(self, name: str) -> MappedFile:
        """See ``Files``."""
        if name in self._packed:
            return self._packed[name]
        return PartialFile(self.path / name, self._listed[name], self._partial[name], self._io)
