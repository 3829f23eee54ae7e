"""SentencePiece models: the pieces of a ``tokenizer.model``.

The file is a protobuf of which three small messages matter, so it is read here directly: 15 MB of library and a
call per token and property are saved. Fields (sentencepiece_model.proto): ModelProto.pieces = 1; SentencePiece.piece = 1,
.score = 2, .type = 3; .trainer_spec = 2, .normalizer_spec = 3.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadInput

#: a blank in a piece
SPACE = "\u2581"
#: the piece of a byte
BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
#: a blank and the end of a line in the alphabet of byte-level BPE
_BYTE_LEVEL = "\u0120", "\u010a"
#: the first line of a vocabulary of tiktoken: a token in base64 and its rank
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\n")
#: SentencePiece.Type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
#: models of 262 000 pieces have 5 MB, and each piece has three fields
_MAX_BYTES, _MAX_FIELDS, _MAX_PIECE_BYTES = 32 << 20, 3 << 20, 1 << 16


def read_pieces(data: bytes, path: Path) -> tuple[list[str], array[float], array[int]]:
    """Texts, scores and types of all pieces of the model ``data``, which messages call ``path``.

    Raises
    ------
    BadInput : the file is not such a model
    """
    if _TIKTOKEN.match(data):
        raise BadInput(
            f"{path} is a vocabulary of tiktoken, not a SentencePiece model",
            "Put tokenizer.json of the same model beside it.",
        )
    if len(data) > _MAX_BYTES:
        raise BadInput(f"{path} has {len(data)} bytes, over the limit of {_MAX_BYTES}")
    texts: list[str] = []
    left = _MAX_FIELDS
    scores, types = array("f"), array("i")
    try:
        for field, start, stop in _fields(data, 0, len(data)):
            left -= 1
            if left < 0 or (field == 1 and stop - start > _MAX_PIECE_BYTES):
                raise BadInput(f"{path} describes more than any SentencePiece model does")
            if field != 1:
                continue
            text, score, kind = "", 0.0, NORMAL
            for inner, a, b in _fields(data, start, stop):
                left -= 1
                if inner == 1:
                    text = data[a:b].decode("utf-8")
                elif inner == 2:
                    (score,) = struct.unpack("<f", data[a:b])
                elif inner == 3:
                    kind = data[a]
            texts.append(text)
            scores.append(score)
            types.append(kind)
    except (IndexError, ValueError, struct.error):
        raise BadInput(f"{path} is damaged after token {len(texts)}: not a SentencePiece model") from None
    if not texts:
        raise BadInput(f"{path} holds no tokens: not a SentencePiece model")
    return texts, scores, types


class SpmSettings(NamedTuple):
    """How a model takes a text apart.

    Attributes
    ----------
    is_unigram : whether it picks the likeliest pieces; else it merges pairs
    add_prefix : whether a text begins with a space
    remove_spaces : whether spaces beside each other become one
    characters : what characters become before, compiled; empty: nothing
    """

    is_unigram: bool = True
    add_prefix: bool = True
    remove_spaces: bool = True
    characters: bytes = b""


def read_settings(data: bytes, path: Path) -> SpmSettings:
    """The settings of a model whose pieces could be read: fields of TrainerSpec and NormalizerSpec.

    Raises
    ------
    BadInput : the file is damaged
    """
    found: dict[str, Any] = {}
    try:
        for field, start, stop in _fields(data, 0, len(data)):
            for inner, a, b in _fields(data, start, stop) if field in _SETTINGS else ():
                name = _SETTINGS[field].get(inner)
                if name == "characters":
                    found[name] = data[a:b]
                elif name is not None:
                    found[name] = _varint(data, a)[0] == 1
    except (IndexError, ValueError):
        raise BadInput(f"{path} is damaged: not a SentencePiece model") from None
    return SpmSettings(**found)


#: field -> field inside it -> what it says; a model type of 1 is Unigram
_SETTINGS = {2: {3: "is_unigram"}, 3: {2: "characters", 3: "add_prefix", 4: "remove_spaces"}}


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(field number, start, stop)`` of each field of the message ``data[at:end]``.

    Raises
    ------
    ValueError, IndexError : the bytes are not a protobuf message
    """
    while at < end:
        tag = data[at]
        at += 1
        if tag & 0x80:
            tag, at = _varint(data, at - 1)
        wire = tag & 7
        if wire == 2:
            size = data[at]
            at += 1
            if size & 0x80:
                size, at = _varint(data, at - 1)
        elif wire == 5:
            size = 4
        elif wire == 1:
            size = 8
        elif wire == 0:
            size = _varint(data, at)[1] - at
        else:
            raise ValueError(f"wire type {wire}")
        stop = at + size
        if stop > end:
            raise ValueError("field runs past its message")
        yield tag >> 3, at, stop
        at = stop


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


def is_spelling(texts: Iterable[str]) -> bool:
    """Whether these pieces are spelled as SentencePiece spells them, not as byte-level BPE does.

    >>> is_spelling(["<0x0A>", "\u2581a", "a"]), is_spelling(["\u0120a", "a"]), is_spelling(["a"])
    (True, False, False)
    """
    balance = 0
    for text in texts:
        balance += SPACE in text or (text.startswith("<0x") and BYTE_PIECE.fullmatch(text) is not None)
        balance -= _BYTE_LEVEL[0] in text or _BYTE_LEVEL[1] in text
    return balance > 0
