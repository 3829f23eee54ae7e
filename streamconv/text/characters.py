"""Characters as llama.cpp sees them: how it reads UTF-8, right or wrong, and the classes of Unicode 15.1 that it knows.

The classes are kept in a file, since those of Python change with its version. A class is a letter, the first one of the general
category (``Z`` separators, ``C`` control and so on), ``U`` where nothing is assigned.
"""

from __future__ import annotations

import lzma
import re
import unicodedata
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from ..errors import BadInput

#: what is a blank to ``\s``
WHITESPACE = frozenset(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029)))
WHITESPACE |= frozenset("\u202f\u205f\u3000")
#: a sequence as its first byte promises it, be it the shortest, a surrogate or beyond Unicode; anything else byte by byte
_SEQUENCE = re.compile(
    rb"[\x00-\x7f]+|[\xc0-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf7][\x80-\xbf]{3}|.", re.DOTALL
)
#: as many bytes as the first one promises, whatever they are
_PROMISED = re.compile(rb"[\x00-\xbf]|[\xc0-\xdf].?|[\xe0-\xef].{0,2}|[\xf0-\xff].{0,3}", re.DOTALL)
#: the letters of the file
_KINDS = dict(zip("stuvwxyz", "CNLZMPSU", strict=True))


@cache
def kinds() -> npt.NDArray[np.uint8]:
    """uint8[0x110000]: the class of every code point, as the code of its letter."""
    packed = files(__package__).joinpath("data/unicode_classes.xz").read_bytes()
    runs = re.findall("([0-9a-f]+)([s-z])", lzma.decompress(packed).decode())
    letters = np.frombuffer("".join(_KINDS[kind] for _, kind in runs).encode(), np.uint8)
    return np.repeat(letters, [int(length, 16) for length, _ in runs])


def kind(character: str) -> str:
    """The class of one character."""
    return chr(kinds()[ord(character)])


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """uint32[len(text)], lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def lower(character: str) -> str:
    """The first character of the lower case of one character."""
    return character if kind(character) == "U" else character.lower()[0]


def base(character: str) -> str:
    """The first character of the canonical decomposition of one character."""
    return character if kind(character) == "U" else unicodedata.normalize("NFD", character)[0]


def sequence_length(data: bytes, at: int) -> int:
    """Bytes of the sequence at ``at``; 0 where none is."""
    if data[at] < 0x80:
        return 1
    found = _SEQUENCE.match(data, at)
    length = found.end() - at if found else 0
    return length if length > 1 else 0


def decoded(data: bytes) -> str:
    """``data`` as text: U+FFFD for every byte that belongs to no sequence, surrogates as they are.

    Raises
    ------
    BadInput : a sequence stands for what lies beyond Unicode, at which llama.cpp ends its process
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(_character(found) for found in _SEQUENCE.finditer(data))


def _character(found: re.Match[bytes]) -> str:
    sequence = found[0]
    if sequence[0] < 0x80:
        return sequence.decode()
    if len(sequence) == 1:
        return "\ufffd"
    value = sequence[0] & (0x7F >> len(sequence))
    for byte in sequence[1:]:
        value = value << 6 | byte & 0x3F
    if value > 0x10FFFF:
        raise BadInput(
            f"byte {found.start()} of the text starts a character beyond Unicode (bytes {sequence.hex(' ')})",
            "The text is not UTF-8: convert it, with iconv for example.",
        )
    return chr(value)


def with_raw_bytes(data: bytes) -> str:
    """``data`` as text, in which every byte of what is not UTF-8 is the lone surrogate U+DC00 + byte; see ``raw_bytes``."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join(_whole_or_raw(symbol) for symbol in _PROMISED.findall(data))


def _whole_or_raw(symbol: bytes) -> str:
    try:
        return symbol.decode()
    except UnicodeDecodeError:
        return "".join(chr(0xDC00 + byte) for byte in symbol)


def raw_bytes(character: str) -> bytes:
    """The bytes of one character of ``with_raw_bytes``."""
    raw = ord(character) - 0xDC00
    return bytes([raw]) if 0 <= raw < 0x100 else character.encode()
