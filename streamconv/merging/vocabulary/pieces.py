"""Texts and kinds of the pieces of a SentencePiece model, read from its protobuf.

Fields (sentencepiece_model.proto): ModelProto.pieces = 1; SentencePiece.piece = 1, .type = 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import BadInput

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def read_pieces(data: bytes, path: Path) -> list[tuple[str, int]]:
    """Text and kind of every piece of the model ``data``, which messages call ``path``.

    Raises
    ------
    BadInput : it is no such model
    """
    found: list[tuple[str, int]] = []
    try:
        for field, start, stop in _fields(data, 0, len(data)):
            if field == 1:
                inner = {number: (a, b) for number, a, b in _fields(data, start, stop)}
                a, b = inner.get(1, (0, 0))
                found.append((data[a:b].decode("utf-8"), data[inner[3][0]] if 3 in inner else NORMAL))
    except (IndexError, ValueError):
        raise BadInput(f"{path} is damaged after token {len(found)}: not a SentencePiece model") from None
    if not found:
        raise BadInput(f"{path} holds no tokens: not a SentencePiece model")
    return found


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(field number, start, stop)`` of each field of the message ``data[at:end]``."""
    while at < end:
        tag, at = _varint(data, at)
        size = 0
        if tag & 7 == 2:
            size, at = _varint(data, at)
        elif tag & 7 == 0:
            size = _varint(data, at)[1] - at
        elif tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
        else:
            raise ValueError(f"wire type {tag & 7}")
        if at + size > end:
            raise ValueError("field runs past its message")
        yield tag >> 3, at, at + size
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The little-endian base-128 number at ``at``, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
