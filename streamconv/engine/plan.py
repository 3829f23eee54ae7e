"""The plan: everything about the output that can be known before one weight is read.

A plan is a list of output files whose bytes are, in order, a header and items at fixed offsets. An *item* is a matrix whose
rows can be made in any order, in one encoding of fixed row length or in several at once (its *parts*), which then go to
different files; what the rows mean is known only to the creator of the item. Items are cut into chunks: a chunk is some
rows of one part = one byte range of one file = one slot of the index, so any thread of any run may make it. Chunks of the
same rows are made together, from one read of the source.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..rows import Bytes, File, Floats, Json, Quality, Rows, Span

#: A chunk holds at most this many output bytes and weights; both bound the work a kill can cost.
CHUNK_BYTES = 16 << 20
CHUNK_WEIGHTS = 16 << 20
#: what file systems take
_MAX_NAME_BYTES = 255
#: Raised whenever the same plan would give other bytes than before.
KERNEL_ABI = 1


class Item(Protocol):
    """One tensor as rows of bytes, in one or more encodings."""

    @property
    def number(self) -> int:
        """What tells it from the other items of its plan."""

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
    def row_bytes(self) -> Sequence[int]:
        """Bytes per row of every part; none is 0."""

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> Sequence[Quality]:
        """Make rows ``start..stop`` of the wanted parts.

        Parameters
        ----------
        outs : one entry a part: uint8[stop - start, row_bytes] to fill, or None
        scratch : float32[>= 2 * n_cols]

        Returns
        -------
        Quality : of every part
        """

    @property
    def looks(self) -> Sequence[Rows]:
        """What is measured before the first row, in this order; see ``Rows.measure``."""

    @property
    def whole(self) -> bool:
        """Whether any row depends on ``everything``, not only on its ``spans``."""

    @property
    def together(self) -> int:
        """Rows that are made of the same bytes of inputs, in groups of so many; 0: there are no such groups."""

    @property
    def is_quick(self) -> bool:
        """Whether rows are made about as fast as their inputs can be read."""

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Every range of every input that rows ``start..stop`` are made of, row by row."""

    def everything(self) -> Iterator[Span]:
        """Every range of every input that any of the rows depends on."""

    @property
    def files(self) -> Sequence[File]:
        """The inputs that ``identity`` speaks of, in its order and as often."""

    def identity(self) -> Json:
        """What decides the bytes of all parts besides the bytes of the inputs."""

    def prefetch(self, start: int, stop: int) -> None:
        """These rows will be made soon."""

    def release(self, start: int, stop: int) -> None:
        """These rows will not be made again."""


def job_folder(output: Path) -> Path:
    """Where the unfinished job for ``output`` is, if there is one."""
    name = f"{output.name}.streamconv"
    return output.with_name(
        name if len(os.fsencode(name)) <= _MAX_NAME_BYTES else f"{shortened(output.name)}.streamconv"
    )


def shortened(name: str) -> str:
    """A name for what belongs to a file ``name`` that has no room for an ending: its beginning, and a digest of all of it."""
    return f"{os.fsencode(name)[:180].decode(errors='ignore')}.{fingerprint(name).hex()[:16]}"


class Provenance(Protocol):
    """What the formats of outputs tell of who made a file."""

    def job_of(self, path: Path) -> str:
        """The fingerprint that the file names as that of its job; "" where it names none or is no such file."""


class Unknown:
    """Provenance where files say nothing."""

    def job_of(self, path: Path) -> str:
        """See ``Provenance``."""
        return ""


@dataclass(frozen=True)
class OutputFile:
    """One file of the output.

    Attributes
    ----------
    path : final name
    header : its first bytes, written last; all of a file that holds no item
    size : length of the whole file; of one that ``grows`` an estimate
    accept : reads the finished file as its users will, before it gets its name; raises StreamconvError where they could not
    names_job : whether the header tells a file of this plan from those of others
    mode : who may do what with it, beside what the umask takes away
    grows : its chunks have whatever length they turn out to have, and follow each other behind the header; before it is
        published, its plan is replaced by one that has its size
    """

    path: Path
    header: bytes
    size: int
    accept: Callable[[Path], None] | None = None
    names_job: bool = True
    mode: int = 0o666
    grows: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a part of an item lies: at byte ``offset`` of output file number ``file``."""

    item: Item
    part: int
    file: int
    offset: int


class Key(NamedTuple):
    """What decides the bytes of a part of an item: parts of any plans with equal keys have the same bytes.

    Attributes
    ----------
    type : what its encoding is called
    encoding : digest of all that decides that: importance, too
    rows : digest of how the values are made, of which inputs, by which kernels
    inputs : digest of what tells the files of the inputs from others and from themselves after a write; where it is all that
        differs, their contents decide
    """

    type: str
    encoding: str
    rows: str
    inputs: str


@dataclass(frozen=True, slots=True)  # a model of 405B has 25 000
class Chunk:
    """Rows ``start..stop`` of a part, ``length`` bytes at ``offset`` of file number ``file``; ``number`` is its slot."""

    number: int
    item: Item
    part: int
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
    output : the name the user gave; the job folder lies beside it, see ``job_folder``
    files, placements : the layout
    admits_nonfinite : whether rows in which NaN or Inf was met count as made. It decides no byte, so it is not in the
        fingerprint: after a refusal the job may be resumed with it, and without it the same values are found again
    folder : when the output is a folder, the one all files lie in; it gets its name in one step
    fingerprint : SHA-256 over everything that decides the output's bytes
    inputs : identity of every file read, JSON-able: ``name``, ``size``, ``mtime_ns``, ``ctime_ns``, ``inode``, ``device``, and
        a ``digest`` of what is read of it while planning
    verify_inputs : raises InputChanged when an input is no longer what it was when the plan was made; True when something
        happened to one, so that its contents are to be looked at before the output gets its name
    description : for people and ``plan.json``
    parts : the names that a user knows -> numbers of their files, where there are several; see ``outputs``
    provenance : tells who made what is in the output's place
    scratch_bytes : disk space of what the job keeps in its folder besides
    key_of : of a part of an item; None where nothing is known of them
    has_manifest : whether keys and digests of all tensors go on record
    """

    output: Path
    files: Sequence[OutputFile]
    placements: Sequence[Placement]
    fingerprint: bytes
    inputs: Sequence[dict[str, Any]]
    verify_inputs: Callable[[], bool]
    description: dict[str, Any] = field(default_factory=dict)
    chunk_bytes: int = CHUNK_BYTES
    folder: Path | None = None
    admits_nonfinite: bool = True
    parts: Mapping[Path, Sequence[int]] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Unknown)
    scratch_bytes: int = 0
    key_of: Callable[[Item, int], Key] | None = None
    has_manifest: bool = False

    @property
    def outputs(self) -> Mapping[Path, Sequence[int]]:
        """The names that a user knows the outputs by, with the numbers of their files."""
        return self.parts or {self.output: range(len(self.files))}

    @property
    def job_dir(self) -> Path:
        """Folder that holds the unfinished job."""
        return job_folder(self.output)

    def part_path(self, index: int) -> Path:
        """Where output file ``index`` is while it grows."""
        if self.folder is not None:
            return self.staging / self.files[index].path.relative_to(self.folder)
        return self.job_dir / f"data-{index + 1}.part"

    @property
    def staging(self) -> Path:
        """What becomes ``folder`` when the output is one."""
        return self.job_dir / "out"

    @property
    def inputs_digest(self) -> bytes:
        """16 bytes that are others when an input was written; never zeros."""
        return fingerprint(list(self.inputs))[:16]

    @property
    def total_bytes(self) -> int:
        """Bytes of all output files."""
        return sum(f.size for f in self.files)

    @property
    def items(self) -> list[tuple[Item, list[Placement]]]:
        """Every item with where its parts lie, in the order of the first of them."""
        found: dict[int, tuple[Item, list[Placement]]] = {}
        for p in self.placements:
            found.setdefault(p.item.number, (p.item, []))[1].append(p)
        return list(found.values())

    def chunks(self) -> list[Chunk]:
        """All chunks in the order they are best made: as the inputs lie; those of the same rows one after the other."""
        chunks: list[Chunk] = []
        for item, places in self.items:
            widest = max(item.row_bytes)
            rows = max(1, min(self.chunk_bytes // widest, CHUNK_WEIGHTS // item.n_cols))
            for start, stop in pairwise(_cuts(item.n_rows, rows, item.together)):
                for p in places:
                    n = item.row_bytes[p.part]
                    chunks.append(
                        Chunk(len(chunks), item, p.part, start, stop, p.file, p.offset + start * n, (stop - start) * n)
                    )
        return chunks


def _cuts(n_rows: int, most: int, together: int) -> list[int]:
    """Where chunks of at most ``most`` rows begin, and the end; none has a part of a group of ``together`` rows and of another."""
    if not together or most >= together:
        step = most // together * together if together else most
        return [*range(0, n_rows, step), n_rows]
    n = -(-together // most)
    return [*(group + together * i // n for group in range(0, n_rows, together) for i in range(n)), n_rows]


def bundles(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """Chunks that follow each other and have the same rows of the same item, together: one read makes them all."""
    return [list(group) for _, group in groupby(chunks, key=lambda c: (c.item.number, c.start))]


def fingerprint(facts: Any) -> bytes:
    """SHA-256 of ``facts`` as canonical JSON.

    >>> fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})
    True
    """
    text = json.dumps([KERNEL_ABI, facts], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()
