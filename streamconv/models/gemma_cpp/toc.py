"""The table of contents of a weight file: of every tensor its name, type, shape and scale, as structs of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .model_config import F32, STRING, Kind, Struct, Words, unpacked_words


@dataclass(frozen=True)
class TocEntry(Struct):
    """A tensor.

    Attributes
    ----------
    type : number of its type, see ``TYPE_NAMES``
    element_bytes, num_elements : of the packed data, counted as gemma.cpp does
    scale : values are what is stored times this
    stride : columns from one row to the next
    """

    kinds: ClassVar[dict[str, Kind]] = {"name": STRING, "scale": F32}

    name: str = ""
    type: int = 0
    element_bytes: int = 0
    num_elements: int = 0
    rows: int = 0
    cols: int = 0
    scale: float = 1.0
    stride: int = 0


def parse_toc(data: bytes) -> list[TocEntry]:
    """The entries of the blob ``toc`` (BadInput: it is damaged)."""
    words, found = Words(unpacked_words(data, "table of contents")), []
    while words.left:
        found.append(TocEntry.read(words))
    return found
