"""Files of the hub that are kept packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import BadInput
from ...file_names import PACK
from ..checkpoint import InputFile
from ..frame_cache import FrameCache
from ..mapped import IoMode
from ..pack import PackFile
from .model import HubFile


@dataclass(frozen=True)
class PackedHubInput(InputFile):
    """A file of the hub as an input, which is known as the plain one is, and has the digest that the hub lists.

    Attributes
    ----------
    own : the packed file on this machine
    """

    own: InputFile = field(kw_only=True)

    def verify_unchanged(self) -> bool:
        """InputChanged where the packed file is not what it was."""
        return self.own.verify_unchanged()


class PackedHubFile(PackFile):
    """A packed file of the hub, kept at ``place``; ``path`` is what messages call the plain one.

    Errors: as ``PackFile``; BadInput also where it is of another file than the hub lists.
    """

    def __init__(self, place: Path, path: Path, file: HubFile, io: IoMode, cache: FrameCache) -> None:
        super().__init__(place, io, cache)
        if (self.size, self.facts.sha256) != (file.size, file.key):
            raise BadInput(
                f"{place} holds a file with the sha256 {self.facts.sha256}, the hub lists {path.name} with {file.key}",
                "Remove it, then run the same command again.",
            )
        self._own = super().describe(self.facts.data_start)
        self._file = file
        self.path = path.with_name(path.name + PACK)

    @property
    def pin(self) -> bytes:
        """As of the plain file: what the packed one says of itself is sealed, and every frame has a checksum."""
        return f"{self._file.digest} 0".encode()

    def describe(self, data_start: int) -> InputFile:
        """As of the plain file."""
        return PackedHubInput(
            name=self.identity(), path=self.path, size=self.size, digest=self._file.digest, device=0, inode=0,
            mtime_ns=0, own=self._own,
        )  # fmt: skip
