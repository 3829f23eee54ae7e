"""What the index of a job says, looked at from outside: the bytes are there, and nothing that was committed is lost."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import xxhash

from streamconv.engine.index_file import read_progress


class Ledger:
    """The jobs of a folder, from look to look.

    Attributes
    ----------
    wrong : slots whose bytes did not have their digest
    lost : slots that were there at an earlier look of the same job and no longer are
    committed : bytes that count, at the last look that found a job
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._salt = 0
        self._known: set[int] = set()
        self.wrong = self.lost = self.committed = self.looks = 0

    def look(self) -> None:
        """Compare the index with the part files, as long as none of them has been renamed."""
        for index in self._folder.glob("*.streamconv/index.wal"):
            with ExitStack() as opened, suppress(FileNotFoundError):
                self._compare(index, opened)

    def _compare(self, index: Path, opened: ExitStack) -> None:
        progress = read_progress(index)
        if progress is None:
            return
        commits = progress.commits
        numbers = sorted({s.file for s in commits})
        parts = {n: opened.enter_context((index.parent / f"data-{n + 1}.part").open("rb")) for n in numbers}
        if not index.exists():
            return
        if progress.header.salt != self._salt:
            self._salt, self._known = progress.header.salt, set()
        self.lost += len(self._known - {s.chunk for s in commits})
        self._known = {s.chunk for s in commits}
        self.committed = sum(s.length for s in commits)
        for s in commits:
            parts[s.file].seek(s.offset)
            self.wrong += xxhash.xxh3_128_digest(parts[s.file].read(s.length)) != s.digest
        self.looks += 1
