"""What all of a transfer share: how it goes about its work, whom it works for, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import Stopped
from ...threads import Monitor
from .part import Part


@dataclass(frozen=True)
class Settings:
    """How a transfer goes about it.

    Attributes
    ----------
    connections : requests under way at once
    head_bytes, range_bytes : length of a file's first range and of the others; part of the index's identity
    span_bytes : consecutive ranges are asked for together up to this
    keep : False releases ranges that are no longer needed; see ``PartialDownload.claim``
    ahead_bytes : when releasing, how much may be fetched before it is requested
    cached : whether bytes should stay in the page cache because they are read here
    """

    connections: int = 4
    head_bytes: int = 256 << 10
    range_bytes: int = 16 << 20
    span_bytes: int = 64 << 20
    keep: bool = True
    ahead_bytes: int = 1 << 30
    cached: bool = True


class Origin(Protocol):
    """Who hands out the bytes of remote files. Called from several threads."""

    def read(self, remote: Any, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Pairs of offset and bytes, in order, that cover ``start..stop`` of a file that it listed.

        One that cannot give a part of a file may begin at 0 and go on to the end, again and again.
        """

    def abort(self) -> None:
        """Make every call of ``read`` that is under way end soon."""


class Observer(Protocol):
    """Receives events of the transfer. Called from several threads; must not block."""

    def received(self, n_bytes: int, path: str) -> None:
        """``n_bytes`` more of a file are durable."""

    def message(self, text: str) -> None:
        """Something a user should know."""


class Shared:
    """The files of a transfer and whether it goes on.

    Attributes
    ----------
    parts : its files
    changed : guards everything that is shared, states of ranges included; notified when some of it is new
    closing, error : why the transfer is over, if it is
    """

    def __init__(self, origin: Origin, observer: Observer, settings: Settings) -> None:
        self.settings = settings
        self.origin, self.observer = origin, observer
        self.parts: list[Part] = []
        self.changed = Monitor()
        self.closing = False
        self.error: BaseException | None = None

    def is_over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.closing or self.error is not None

    def raise_error(self) -> None:
        """Raise what ended the transfer, if something did."""
        if self.error is not None:
            raise self.error
        if self.closing:
            raise Stopped("the transfer was stopped", "Run the same command again to resume.")

    def fail(self, error: BaseException) -> None:
        """End the transfer; waiting readers get ``error``. Without the lock."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()

    def say(self, part: Part) -> None:
        """Pass the notes of ``part`` on. Without the lock."""
        while part.notes:
            self.observer.message(part.notes.pop(0))
