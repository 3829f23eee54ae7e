"""Small files that are read whole: settings, recipes, tokenizers. Whatever lies in their place, reading them ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput, unreadable
from .placeholders import HEAD_BYTES, refuse_placeholder


def open_regular(path: Path) -> int:
    """A descriptor of the regular file ``path`` for reading, which the caller closes; links are followed.

    Errors: InputMissing, NoPermission, or BadInput for what is not a regular file or cannot be opened.
    """
    try:
        # O_NONBLOCK: a pipe in place of a file must not keep us waiting before it can be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as e:
        if getattr(e, "errno", 0) == errno.ENXIO:  # a socket
            raise BadInput(f"{path} is not a regular file") from None
        raise unreadable(path, e) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadInput(f"{path} is not a regular file")
    return fd


def head_of(path: Path) -> bytes:
    """The first bytes of the regular file ``path``, as many as tell what it is; errors as ``open_regular``."""
    with open(open_regular(path), "rb") as file:
        return _up_to(HEAD_BYTES, file)


def read_small(path: Path, most: int) -> bytes:
    """The bytes of the regular file ``path``.

    Errors: as ``open_regular``; BadInput also for more than ``most`` bytes, and for what is not the file itself.
    """
    try:
        with open(open_regular(path), "rb") as file:
            data = _up_to(most + 1, file)
            size = max(len(data), os.fstat(file.fileno()).st_size)
    except OSError as e:
        raise unreadable(path, e) from None
    if len(data) > most:
        raise BadInput(f"{path} has {size} bytes, over the limit of {most}")
    refuse_placeholder(path, data)
    return data


def _up_to(most: int, file: BinaryIO) -> bytes:
    """At most so many bytes, by pieces: ``file.read(most)`` would ask for memory for all of them, whatever is there."""
    parts = []
    while part := file.read(min(most, 1 << 20)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)
