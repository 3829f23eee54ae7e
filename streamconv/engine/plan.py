"""The plan: everything about the output that can be known before one weight is read.

A plan is a list of output files whose bytes are, in order, a header and items at fixed offsets. An *item* is a matrix of
rows of fixed byte length that can be made in any order; what the rows mean is the business of whoever made the item. Items
are cut into chunks: a chunk is some rows of one item = one byte range of one file = one slot of the index, so any thread of
any run may make it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..rows import Bytes, Floats, Quality

#: A chunk holds at most this many output bytes and weights; both bound the work a kill can cost.
CHUNK_BYTES = 16 << 20
CHUNK_WEIGHTS = 16 << 20
#: Raised whenever the same plan would give other bytes than before.
KERNEL_ABI = 1


class Item(Protocol):
    """One output tensor as rows of bytes."""

    @property
    def name(self) -> str:
        """Name in the output."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def n_cols(self) -> int:
        """Weights per row."""

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""

    def fill(self, start: int, stop: int, out: Bytes, scratch: Floats) -> Quality:
        """Make rows ``start..stop`` in ``out`` (uint8[stop - start, row_bytes]); ``scratch`` is float32[>= 2 * n_cols]."""

    def prefetch(self, start: int, stop: int) -> None:
        """These rows will be made soon."""

    def release(self, start: int, stop: int) -> None:
        """These rows will not be made again."""


@dataclass(frozen=True)
class OutputFile:
    """One file of the output.

    Attributes
    ----------
    path : final name
    header : its first bytes, written last
    size : length of the whole file
    """

    path: Path
    header: bytes
    size: int


@dataclass(frozen=True)
class Placement:
    """Where an item lies: at byte ``offset`` of output file number ``file``."""

    item: Item
    file: int
    offset: int


@dataclass(frozen=True)
class Chunk:
    """Rows ``start..stop`` of an item, ``length`` bytes at ``offset`` of file number ``file``; ``number`` is its slot."""

    number: int
    item: Item
    start: int
    stop: int
    file: int
    offset: int
    length: int


@dataclass(frozen=True)
class Plan:
    """A job, fully determined.

    Attributes
    ----------
    output : the name the user gave; the job folder is ``output`` + ".streamconv"
    files, placements : the layout
    fingerprint : SHA-256 over everything that decides the output's bytes
    inputs : identity of every file read, JSON-able; a difference on resume means a changed input
    verify_inputs : raises InputChanged when an input is no longer what it was when the plan was made
    description : for people and ``plan.json``
    """

    output: Path
    files: Sequence[OutputFile]
    placements: Sequence[Placement]
    fingerprint: bytes
    inputs: Sequence[dict[str, Any]]
    verify_inputs: Callable[[], None]
    description: dict[str, Any] = field(default_factory=dict)
    chunk_bytes: int = CHUNK_BYTES

    @property
    def job_dir(self) -> Path:
        """Folder that holds the unfinished job."""
        return self.output.with_name(self.output.name + ".streamconv")

    @property
    def total_bytes(self) -> int:
        """Bytes of all output files."""
        return sum(f.size for f in self.files)

    def chunks(self) -> list[Chunk]:
        """All chunks in the order they are best made: as the inputs lie."""
        chunks: list[Chunk] = []
        for p in self.placements:
            item = p.item
            rows = min(self.chunk_bytes // item.row_bytes, CHUNK_WEIGHTS // item.n_cols) if item.row_bytes else 1
            rows = max(1, rows)
            for start in range(0, item.n_rows, rows):
                stop = min(start + rows, item.n_rows)
                if item.row_bytes:
                    chunks.append(
                        Chunk(
                            len(chunks),
                            item,
                            start,
                            stop,
                            p.file,
                            p.offset + start * item.row_bytes,
                            (stop - start) * item.row_bytes,
                        )  # fmt: skip
                    )
        return chunks


def fingerprint(facts: Any) -> bytes:
    """SHA-256 of ``facts`` as canonical JSON.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps([KERNEL_ABI, facts], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()
