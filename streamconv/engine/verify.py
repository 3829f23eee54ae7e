"""Are the bytes still those that were made? A finished file against its record, and inputs against what was made of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from ..errors import BadInput, NoPermission, Stopped, StreamconvError, raise_exhausted
from ..ownership import open_regular
from ..rows import Bytes, Span
from . import files
from .plan import Chunk, Item, bundles
from .record import FileRecord

_READ_BYTES = 4 << 20
#: floats of a tile
_SCRATCH = 128 << 10
_UNKNOWN = bytes(16)

#: told of the bytes read so far; raises to stop
Progress = Callable[[int], None]


class Damage(NamedTuple):
    """A range that is not as it was made; ``what`` is wrong with it, ``tensor`` "" outside of tensors."""

    path: Path
    offset: int
    length: int
    tensor: str
    what: str

    def __str__(self) -> str:
        place = f"bytes {self.offset:,} to {self.offset + self.length:,}" if self.length else "the file"
        return f"{self.path}: {self.what}: {place}{f', tensor {self.tensor}' if self.tensor else ''}"


def digest_of(fd: int, offset: int, length: int, path: Path, progress: Progress | None = None) -> bytes:
    """xxh3-128 of a range of an open file, a few MiB at a time; what the file lacks is left out."""
    digest = xxhash.xxh3_128()
    for at in range(offset, offset + length, _READ_BYTES):
        data = files.pread_exactly(fd, min(_READ_BYTES, offset + length - at), at, path)
        digest.update(data)
        if progress:
            progress(len(data))
    return digest.digest()


def damages(path: Path, record: FileRecord, progress: Progress | None = None) -> Iterator[Damage]:
    """Everything of the file that is not what ``record`` says; reads all of it.

    Raises
    ------
    WriteFailed : it cannot be read
    """
    try:
        fd = open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
    except (OSError, NoPermission) as e:
        raise_exhausted(e)
        yield Damage(path, 0, 0, "", e.strerror or str(e) if isinstance(e, OSError) else "is not a regular file")
        return
    try:
        size = os.fstat(fd).st_size
        if size != record.size:
            start, stop = sorted((size, record.size))
            yield Damage(path, start, stop - start, "", f"has {size:,} bytes, had {record.size:,}")
        ranges = [(0, record.header_bytes, record.header_digest, "", "the header differs")]
        ranges += [(r.offset, r.length, r.digest, r.tensor, "differs from what was written") for r in record.ranges]
        end = 0
        for offset, length, digest, tensor, what in ranges:
            yield from _gap(fd, path, end, min(offset, size))
            if digest_of(fd, offset, length, path, progress).hex() != digest:
                yield Damage(path, offset, length, tensor, what)
            files.drop_cache(fd, offset, length)
            end = offset + length
        yield from _gap(fd, path, end, min(record.size, size))
    finally:
        os.close(fd)


def _gap(fd: int, path: Path, start: int, stop: int) -> Iterator[Damage]:
    """What aligns tensors is zero."""
    for at in range(start, stop, _READ_BYTES):
        data = files.pread_exactly(fd, min(_READ_BYTES, stop - at), at, path)
        if any(data):
            yield Damage(path, at, len(data), "", "what aligns tensors is not zero")


class SourceDigests:
    """Digests of what rows are made from; safe to ask from several threads.

    The digest of a range is xxh3-128 of all bytes of local files that its rows are made from, in the order of their spans. Rows
    that depend on a look at everything have that of everything in common, which is made once. For files whose whole content is
    pinned, as that of the hub's is by a digest of its own, what pins it stands for the bytes.

    Parameters
    ----------
    wanted : whether anybody still waits for them
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self._wanted = wanted
        self._common: dict[int, bytes] = {}
        self._locks: dict[int, threading.Lock] = {}

    def of(self, item: Item, start: int, stop: int) -> bytes:
        """16 bytes for rows ``start..stop``; reads what they are made from.

        Raises
        ------
        Stopped : nobody waits for them any more
        """
        if not item.whole:
            return _digest_of_spans(item.spans(start, stop), self._wanted)
        with self._locks.setdefault(id(item), threading.Lock()):
            if id(item) not in self._common:
                self._common[id(item)] = _digest_of_spans(item.everything(), self._wanted)
            return self._common[id(item)]

    def worth_it(self, item: Item, start: int, stop: int) -> bytes:
        """The same where it is worth its time; else zeros: to make the rows again takes no longer than to read them."""
        if item.is_quick and any(not file.pin for file in item.files):
            return _UNKNOWN
        return self.of(item, start, stop)


def _digest_of_spans(spans: Iterable[Span], wanted: Callable[[], bool]) -> bytes:
    digest = xxhash.xxh3_128()
    for file, offset, length in spans:
        if file.pin:
            digest.update(file.pin)
            continue
        for at in range(offset, offset + length, _READ_BYTES):
            if not wanted():
                raise Stopped("nobody waits for these digests any more")
            digest.update(file.view(at, min(_READ_BYTES, offset + length - at)).data)
    return digest.digest()


class Made(NamedTuple):
    """Digests of what was made, and of what it was made from; the latter are zeros where they were not worth their time."""

    digest: bytes
    source: bytes = _UNKNOWN


def changed_sources(chunks: Iterable[Chunk], made: Mapping[int, Made], progress: Progress | None = None) -> list[Chunk]:
    """Those of ``chunks`` that inputs as they are now would give other bytes than ``made``, by chunk number, says; reads them.

    Told by the digest of the inputs where there is one, else by making the bytes again, which are not kept.
    """
    digests, changed = SourceDigests(), []
    for bundle in bundles(c for c in chunks if c.number in made):
        first, found = bundle[0], b""
        for c in bundle:
            digest, source = made[c.number]
            if any(source):
                found = found or digests.of(c.item, c.start, c.stop)
                same = source == found
            else:
                same = digest == _digest_made_again(c)
            if not same:
                changed.append(c)
        first.item.release(first.start, first.stop)
        if progress:
            progress(sum(c.length for c in bundle))
    return changed


def _digest_made_again(chunk: Chunk) -> bytes:
    """Digest of the bytes that the chunk would have now; empty where it cannot be made."""
    item, n_bytes = chunk.item, chunk.item.row_bytes[chunk.part]
    step = max(1, _READ_BYTES // max(n_bytes, 4 * item.n_cols))
    scratch = np.empty(max(_SCRATCH, 2 * item.n_cols), np.float32)
    digest = xxhash.xxh3_128()
    outs: list[Bytes | None] = [None] * len(item.row_bytes)
    for start in range(chunk.start, chunk.stop, step):
        stop = min(start + step, chunk.stop)
        # Rows begin where kernels may expect them to.
        data = np.empty((stop - start) * n_bytes + 64, np.uint8)
        data = data[-data.ctypes.data % 64 :][: (stop - start) * n_bytes]
        outs[chunk.part] = data.reshape(stop - start, n_bytes)
        try:
            item.fill(start, stop, outs, scratch)
        except BadInput:
            return b""
        digest.update(data.data)
    return digest.digest()


def has_header(path: Path, record: FileRecord) -> bool:
    """Whether the file begins as ``record`` says; for a file without ranges, whether it is the one on record."""
    try:
        fd = open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
    except (OSError, NoPermission):
        return False
    try:
        return digest_of(fd, 0, record.header_bytes, path).hex() == record.header_digest
    except StreamconvError:
        return False
    finally:
        os.close(fd)


def first_damage(path: Path, record: FileRecord) -> Damage | None:
    """The first of ``damages``, None where the file is as it was made."""
    with suppress(StreamconvError):
        return next(damages(path, record), None)
    return Damage(path, 0, 0, "", "cannot be read")
