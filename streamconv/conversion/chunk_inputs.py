"""Which bytes of the hub's files a chunk needs: fetched in the order of the chunks, and given up when these are committed.

    begin(chunks to make) ─► the transfer fetches in their order; readers wait for the bytes they touch
    committed(chunks)     ─► with --evict, ranges that are no longer needed are punched out
    wait_verified()       ─► before the output gets its name: every digest was right

Nothing here knows what a chunk is made of: which bytes it needs is what its row sources say (``Rows.spans``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..engine.plan import Chunk
from ..rows import Span
from .hub_models import HubModels

if TYPE_CHECKING:
    from ..sources.hub.files import PartialDownload

    #: file, offset and length
    Range = tuple[PartialDownload, int, int]


class ChunkInputs:
    """The bytes that the chunks of one run need of ``models``; an ``engine.run.Supply``."""

    def __init__(self, models: HubModels) -> None:
        self._models = models
        self._numbers: dict[PartialDownload, int] = {}
        self._ranges: dict[int, Sequence[Range]] = {}

    def begin(self, chunks: Iterable[Chunk]) -> None:
        """These chunks are to be made: fetch what they need, in their order.

        Raises
        ------
        Locked, WriteFailed
        """
        self._numbers = {partial: number for number, partial in enumerate(self._models.weights)}
        todo = list(chunks)
        looked: set[int] = set()
        for chunk in todo:
            item = chunk.item
            # No chunk is made before all rows were looked at, so one of them is enough to keep what that takes.
            looks = item.whole and item.number not in looked
            looked.add(item.number)
            self._ranges[chunk.number] = _ranges(
                (*item.spans(chunk.start, chunk.stop), *(item.everything() if looks else ()))
            )
        for chunk in sorted(todo, key=self.place):
            for partial, offset, length in self._ranges[chunk.number]:
                partial.claim(offset, length)
        self._models.start()

    def place(self, chunk: Chunk) -> tuple[int, int]:
        """Number of the file and the offset at which what ``chunk`` needs begins; see ``engine.run.Supply``."""
        ranges = self._ranges.get(chunk.number)
        if not ranges:
            return 0, 0
        partial, offset, _ = ranges[0]
        return self._numbers.get(partial, 0), offset

    def committed(self, chunks: Iterable[Chunk]) -> None:
        """These chunks are durable: what only they needed may go."""
        for chunk in chunks:
            for partial, offset, length in self._ranges.pop(chunk.number, ()):
                partial.unclaim(offset, length)

    def wait_verified(self, seconds: float) -> bool:
        """Wait at most ``seconds`` until every file is whole and its digest was right, or it was released.

        Raises
        ------
        BadInput : a digest is wrong
        NetworkError : and whatever else ended the transfer
        """
        return self._models.transfer.wait(self._models.weights, seconds)

    def close(self) -> None:
        """End the transfer; what is durable stays. Readers that wait get Stopped."""
        self._models.close()


def _ranges(spans: Iterable[Span]) -> list[Range]:
    """Those of ``spans`` that are in files of the hub, each once."""
    from ..sources.hub.files import PartialFile

    found = ((s.file.partial, s.offset, s.length) for s in spans if isinstance(s.file, PartialFile))
    return list(dict.fromkeys(found))
