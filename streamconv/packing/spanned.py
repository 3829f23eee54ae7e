"""What items of packs do with the byte ranges that they name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from ..rows import Span


class Spanned(ABC):
    """An item all of whose reading goes by ``spans``."""

    @abstractmethod
    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Item``."""

    def prefetch(self, start: int, stop: int) -> None:
        """See ``Item``."""
        for file, offset, length in self.spans(start, stop):
            file.prefetch(offset, length)

    def release(self, start: int, stop: int) -> None:
        """See ``Item``."""
        for file, offset, length in self.spans(start, stop):
            file.release(offset, length)
