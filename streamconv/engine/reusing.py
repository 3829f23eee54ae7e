"""What older outputs have already is copied from there instead of made.

    older outputs with a manifest ─► ``find``: same key of a tensor → where its bytes lie, in ranges with digests
    ``copy``: copy_file_range → part file → read back: digest as on record? → data barrier, commit slots   (as any chunk)

An older output is believed nothing but what was read back from the part file, so it may be replaced, damaged, or gone at any
moment: what is not as on record is made. Nor is it part of the plan: a job that began with it goes on without, and any other
job may go on with it. The output that is being replaced may be one, as it is whole until the new one gets its name.

Reading back costs a pass over memory beside the copy, and none over the disk where that was not shared. Without it, a file that
was damaged years ago, or written to while it is copied, would become part of one whose digests are right.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import xxhash

from ..errors import NoPermission, StreamconvError, raise_exhausted
from ..ownership import open_regular
from ..threads import spread
from . import files
from .budget import Budget
from .changes import SourceDigests
from .copying import copy_range
from .index_file import CommitRecord
from .job import Job
from .plan import Chunk, Plan
from .record import Range, Record, TensorRecord
from .run import Reporter, StopRequest
from .verify import digest_of, form_at

_READ_BYTES = 4 << 20
_UNKNOWN = bytes(16)
#: why a tensor is not copied
_ABSENT = "are not in it"
_TYPE = "have another type in it"
_ENCODING = "have other importance or options"
_ROWS = "are made of other inputs, in another way, or by another version"
_NONFINITE = "have NaN or Inf, which are counted again"
_DAMAGED = "are not there as its record says"
_INPUTS = "are made of inputs that have changed, or that take as long to compare"


class Donor(NamedTuple):
    """An older output, and its record."""

    output: Path
    record: Record

    @property
    def has_manifest(self) -> bool:
        """Whether its record tells what its tensors were made of."""
        return any(f.tensors for f in self.record.files)


@dataclass(frozen=True)
class Source:
    """Where the bytes of a part of an item lie: those of ``tensor`` of ``donor``, in the file ``path``.

    Attributes
    ----------
    ranges : of the tensor, with digests
    is_same : whether the inputs are the very files that it was made from, untouched
    """

    donor: Path
    path: Path
    tensor: TensorRecord
    ranges: Sequence[Range]
    is_same: bool


@dataclass
class Reusable:
    """What of a plan older outputs have.

    Attributes
    ----------
    sources : of items' parts
    n_bytes : of all of these
    reasons : by older output, why tensors are not had from it, with how many
    missed : the same of those that should have been
    """

    sources: dict[tuple[int, int], Source] = field(default_factory=dict)
    n_bytes: int = 0
    reasons: dict[Path, Counter[str]] = field(default_factory=dict)
    missed: dict[Path, Counter[str]] = field(default_factory=dict)

    @property
    def donors(self) -> list[Path]:
        """The older outputs that have something."""
        return list(dict.fromkeys(s.donor for s in self.sources.values()))

    def told(self) -> list[str]:
        """Why tensors are not had, a line for each older output."""
        return _lines(self.reasons, "not copied from")

    def told_of_missed(self) -> list[str]:
        """Which of those that should have been were not."""
        return _lines(self.missed, "made, in whole or in part, instead of copied from")


def _lines(reasons: Mapping[Path, Counter[str]], what: str) -> list[str]:
    return [
        f"{found.total()} tensors are {what} {output}: {', '.join(f'{n} {why}' for why, n in found.most_common())}"
        for output, found in reasons.items() if found
    ]  # fmt: skip


def find(plan: Plan, donors: Iterable[Donor]) -> Reusable:
    """Which tensors of ``plan`` are in ``donors``, as their records say; reads no more of them than headers."""
    found = Reusable()
    donors = [donor for donor in donors if donor.has_manifest]
    if plan.key_of is None or not donors:
        return found
    known: dict[tuple[str, str], list[Source]] = {}
    named: dict[tuple[Path, str], list[TensorRecord]] = {}
    for donor in donors:
        found.reasons[donor.output] = Counter()
        for path, file in ((p, form_at(p, f)) for p, f in donor.record.paths(donor.output.parent)):
            for t in file.tensors:
                first, end = (bisect_left(file.ranges, at, key=_offset) for at in (t.offset, t.offset + t.length))
                ranges = file.ranges[first:end]
                known.setdefault(t.key[1:3], []).append(Source(donor.output, path, t, ranges, is_same=False))
                named.setdefault((donor.output, t.name), []).append(t)
    for place in plan.placements:
        key = plan.key_of(place.item, place.part)
        length = place.item.n_rows * place.item.row_bytes[place.part]
        alike = [s for s in known.get(key[1:3], ()) if s.tensor.length == length and not s.tensor.nonfinite]
        if alike:
            same = next((s for s in alike if s.tensor.key.inputs == key.inputs), None)
            source = same or alike[0]
            found.sources[place.item.number, place.part] = Source(
                source.donor, source.path, source.tensor, source.ranges, is_same=same is not None
            )
            found.n_bytes += length
            continue
        for output, reasons in found.reasons.items():
            reasons[_why(key[:3], named.get((output, place.item.name), ()))] += 1
    return found


def _why(wanted: Sequence[str], there: Sequence[TensorRecord]) -> str:
    """Why none of the tensors of a name is what is ``wanted``: type, encoding, rows."""
    if not there:
        return _ABSENT
    rows = [t for t in there if t.key.rows == wanted[2]]
    if any(t.key.encoding == wanted[1] for t in rows):
        return _NONFINITE
    if rows:
        return _ENCODING if any(t.key.type == wanted[0] for t in rows) else _TYPE
    return _ROWS


def copy(job: Job, found: Reusable, budget: Budget, reporter: Reporter, stop: StopRequest) -> int:
    """Copy and commit every pending chunk that is ``found``; how many bytes. What could not be had is added to its reasons.

    Raises
    ------
    Stopped, Interrupted : asked to stop; the job can be resumed
    Locked, InputChanged, WriteFailed : as ``run.run``
    """
    chunks = [c for c in job.plan.chunks() if c.number not in job.done and (c.item.number, c.part) in found.sources]
    if not chunks:
        return 0
    n_bytes = 0

    def commit(group: list[CommitRecord]) -> None:
        nonlocal n_bytes
        if group:
            job.commit(group)
            job.done |= {s.chunk: s for s in group}
            n_bytes += sum(s.length for s in group)

    reporter.start(job.plan.total_bytes, sum(s.length for s in job.done.values()))
    try:
        with stop.on_signals(), _Copier(job, found, reporter, stop) as copier:
            before: list[CommitRecord] = []
            for group in _windows(chunks, budget.window_bytes):
                # While one thread waits for the disk, the others copy what is committed next.
                copied: list[CommitRecord] = []
                steps: list[Callable[[], None]] = [partial(commit, before)]
                steps += [partial(copier.copy, chunk, copied) for chunk in group]
                spread(lambda step: step(), steps, budget.threads)
                before = copied
                if stop.signum or ((n_bytes or before) and stop.is_due()):
                    break
            commit(before)
            # A deadline ends only a run that has got on: where nothing could be had, the next thing is to make something.
            if stop.signum or (n_bytes and stop.is_due()):
                job.rest()
                raise stop.error(job)
    finally:
        reporter.finish()
    return n_bytes


def _windows(chunks: Sequence[Chunk], n_bytes: int) -> Iterator[list[Chunk]]:
    """Chunks that are committed together."""
    group: list[Chunk] = []
    left = n_bytes
    for chunk in chunks:
        group.append(chunk)
        left -= chunk.length
        if left <= 0:
            yield group
            group, left = [], n_bytes
    if group:
        yield group


class _Copier:
    """Copies chunks; may be shared by threads."""

    def __init__(self, job: Job, found: Reusable, reporter: Reporter, stop: StopRequest) -> None:
        self._job, self._found, self._reporter, self._stop = job, found, reporter, stop
        self._digests = SourceDigests(lambda: not stop.signum)
        self._fds: dict[Path, int] = {}
        self._missed: set[tuple[int, int]] = set()
        self._opened = ExitStack()

    def __enter__(self) -> _Copier:
        for path in {source.path for source in self._found.sources.values()}:
            try:
                self._fds[path] = open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
                self._opened.callback(os.close, self._fds[path])
            except (OSError, NoPermission) as e:  # gone since, or no longer a regular file
                raise_exhausted(e)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def copy(self, chunk: Chunk, copied: list[CommitRecord]) -> None:
        """Add to ``copied`` what the index is to say of ``chunk``, if its bytes are in its part file now."""
        if self._stop.signum:
            return
        place = chunk.item.number, chunk.part
        source = self._found.sources[place]
        fd = self._fds.get(source.path, -1)
        why = _DAMAGED if fd < 0 else _INPUTS
        if fd >= 0 and (source.is_same or self._has_same_inputs(chunk, source)):
            why = _DAMAGED
            expected, digest = _expected(chunk, source, fd)
            if expected and self._copied(chunk, source, fd) == expected:
                copied.append(
                    CommitRecord(
                        chunk.number,
                        chunk.file,
                        chunk.offset,
                        chunk.length,
                        chunk.stop - chunk.start,
                        expected,
                        math.nan,
                        source=digest,
                    )  # fmt: skip
                )
                self._reporter.advance(chunk.length, chunk.item.name)
                return
        if place not in self._missed:
            self._missed.add(place)
            self._found.missed.setdefault(source.donor, Counter())[why] += 1

    def _copied(self, chunk: Chunk, source: Source, fd: int) -> bytes:
        """The digest of what is in the place of ``chunk`` once it was copied there."""
        to, path = self._job.part_fds[chunk.file], self._job.plan.part_path(chunk.file)
        start = source.tensor.offset + chunk.start * _row_bytes(chunk)
        copy_range(fd, start, to, chunk.offset, chunk.length, path)
        files.drop_cache(fd, start, chunk.length)
        return digest_of(to, chunk.offset, chunk.length, path)

    def _has_same_inputs(self, chunk: Chunk, source: Source) -> bool:
        """Whether the inputs, which are other files or have other times, have the contents that the bytes were made from."""
        item, n = chunk.item, _row_bytes(chunk)
        for r in _overlapping(chunk, source):
            start, stop = (r.offset - source.tensor.offset) // n, (r.offset - source.tensor.offset + r.length) // n
            if not r.source or self._digests.of(item, start, stop).hex() != r.source:
                return False
            item.release(start, stop)
        return True


def _row_bytes(chunk: Chunk) -> int:
    return chunk.item.row_bytes[chunk.part]


def _overlapping(chunk: Chunk, source: Source) -> list[Range]:
    """The ranges on record that have bytes of ``chunk``."""
    start = source.tensor.offset + chunk.start * _row_bytes(chunk)
    first = max(0, bisect_right(source.ranges, start, key=_offset) - 1)
    return list(source.ranges[first : bisect_left(source.ranges, start + chunk.length, key=_offset)])


def _offset(r: Range) -> int:
    return r.offset


def _expected(chunk: Chunk, source: Source, fd: int) -> tuple[bytes, bytes]:
    """The digests of ``chunk`` and of what it is made from (zeros if unknown), as far as the record tells; else nothing.

    Where the older output was cut into other chunks, those are read that have bytes of this one.
    """
    start = source.tensor.offset + chunk.start * _row_bytes(chunk)
    stop = start + chunk.length
    ranges = _overlapping(chunk, source)
    digest = xxhash.xxh3_128()
    end = start
    for r in ranges:
        known = bytes.fromhex(r.digest)
        if (r.offset, r.length) == (start, chunk.length):
            return known, bytes.fromhex(r.source) or _UNKNOWN
        if r.offset > end:
            return b"", _UNKNOWN
        whole = xxhash.xxh3_128()
        for at in range(r.offset, r.offset + r.length, _READ_BYTES):
            try:
                data = files.pread_exactly(fd, min(_READ_BYTES, r.offset + r.length - at), at, source.path)
            except StreamconvError:
                return b"", _UNKNOWN
            whole.update(data)
            digest.update(data[max(start - at, 0) : max(stop - at, 0)])
        if whole.digest() != known:
            return b"", _UNKNOWN
        end = r.offset + r.length
    if end < stop:
        return b"", _UNKNOWN
    # Of rows that depend on a look at everything, all have the same.
    return digest.digest(), bytes.fromhex(ranges[0].source if chunk.item.whole else "") or _UNKNOWN
