"""gemma.cpp's weight files: what comes before the tensors, and where each tensor's bytes go.

Configuration, tokenizer and table of contents come first. Entries of the table whose scale is only known when the tensor was
looked at are last in it: their places are given, their bytes are made with the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..quant.sbs.container import CONFIG, JOB, TOC, TOKENIZER, laid_out
from .layout import FileLayout


class Piece(NamedTuple):
    """A part of the file that is made: the tensor number ``number`` of the output, ``offset`` bytes into the blob ``key``."""

    number: int
    key: str
    offset: int


def layout(
    path: Path,
    config: bytes,
    tokenizer: bytes,
    toc: bytes,
    toc_bytes: int,
    blobs: Mapping[str, int],
    pieces: Sequence[Piece],
    job: str,
) -> FileLayout:
    """Lay out a file.

    Parameters
    ----------
    toc : the first entries of the table of contents, whose bytes are known
    toc_bytes : length of the whole table
    blobs : key of every tensor -> bytes, in file order
    pieces : what is made, in the order in which it is best made
    job : identifies the job

    Raises
    ------
    BadInput : a key or a length that no such file can hold
    """
    known = {JOB: job.encode(), CONFIG: config, TOKENIZER: tokenizer, TOC: toc}
    sizes = {key: len(data) for key, data in known.items()}
    container = laid_out({**sizes, TOC: toc_bytes, **blobs})
    header = bytearray(container.head)
    for key, data in known.items():
        header += bytes(container.offsets[key] - len(header)) + data
    places = [(piece.number, container.offsets[piece.key] + piece.offset) for piece in pieces]
    return FileLayout(path, bytes(header), container.size, places)
