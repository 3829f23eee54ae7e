"""What a transfer tells while a job is planned and run."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], None]
#: told of a number of bytes and the name of their file
Count = Callable[[int, str], None]


def _ignore(n_bytes: int, path: str) -> None:
    """Count nothing."""


class TransferNotes:
    """Passes messages and byte counts on, and keeps the messages until there is a listener; an ``engine.transfer.Observer``.

    Attributes
    ----------
    looked : told of bytes of the store that are read again; may raise to end it
    """

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._tell: Tell = self._kept.append
        self._received: Count = _ignore
        self.looked: Count = _ignore

    def listen(self, tell: Tell, received: Count | None = None) -> None:
        """Send messages to ``tell`` from now on, those kept until now first; byte counts to ``came``."""
        self._tell = tell
        if received is not None:
            self._received = received
        while self._kept:
            tell(self._kept.pop(0))

    def received(self, n_bytes: int, path: str) -> None:
        """``n_bytes`` more of the file ``path`` are durable."""
        self._received(n_bytes, path)

    def message(self, text: str) -> None:
        """Something a user should know."""
        self._tell(text)
