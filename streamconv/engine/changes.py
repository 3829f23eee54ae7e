"""Would the inputs, as they are now, still give what was made of them?

Told by a digest of all that rows are made from, or, where rows are made about as fast as they are read, by making them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import xxhash

from ..errors import BadInput, Stopped
from ..rows import Bytes, Span
from .plan import Chunk, Item, bundles

_READ_BYTES = 4 << 20
#: floats of a tile
_SCRATCH = 128 << 10
_UNKNOWN = bytes(16)

#: told of the bytes read so far; raises to stop
Progress = Callable[[int], None]


class SourceDigests:
    """Digests of what rows are made from; safe to ask from several threads.

    The digest of a range is xxh3-128 of all bytes of local files that its rows are made from, in the order of their spans. What
    rows have in common is taken in once: everything, where they depend on a look at everything, and the matrix that lines of a
    transposed one lie all over. For files whose whole content is pinned, as that of the hub's is by a digest of its own, what
    pins it stands for the bytes.

    Parameters
    ----------
    wanted : whether they are still wanted
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self._wanted = wanted
        self._common: dict[int, bytes] = {}
        self._groups: dict[int, tuple[int, bytes]] = {}
        self._locks: dict[int, threading.Lock] = {}

    def of(self, item: Item, start: int, stop: int) -> bytes:
        """16 bytes for rows ``start..stop``; reads what they are made from.

        Raises
        ------
        Stopped : they are no longer needed
        """
        if not item.whole and not _is_of_one_group(item, start, stop):
            return _DigestOfSpans(item.spans(start, stop), self._wanted).complete()
        with self._locks.setdefault(item.number, threading.Lock()):
            if not item.whole:
                return self._of_group(item, start, stop)
            if item.number not in self._common:
                self._common[item.number] = _DigestOfSpans(item.everything(), self._wanted).complete()
            return self._common[item.number]

    def _of_group(self, item: Item, start: int, stop: int) -> bytes:
        """That of a group of rows that rows ``start..stop`` are of; kept until another is asked for."""
        group = start // item.together
        known, digest = self._groups.get(item.number, (-1, _UNKNOWN))
        if known != group:
            digest = _DigestOfSpans(item.spans(start, stop), self._wanted).complete()
            self._groups[item.number] = group, digest
        return digest

    def know(self, number: int, digest: bytes) -> None:
        """What rows of item ``number`` have in common is known already: another process has made the digest."""
        self._common.setdefault(number, digest)

    def is_quick(self, item: Item) -> bool:
        """Whether no digest is taken: to make the rows again takes no longer than to read what they are made from."""
        return item.is_quick and any(not file.pin for file in item.files)

    def alongside(self, item: Item, start: int, stop: int) -> SourceDigest:
        """The same, to be taken while the rows are made; zeros where there is none."""
        if self.is_quick(item):
            return SourceDigest(_UNKNOWN)
        if item.whole or _is_of_one_group(item, start, stop):
            return SourceDigest(self.of(item, start, stop))
        return _DigestOfSpans(item.spans(start, stop), self._wanted)


def _is_of_one_group(item: Item, start: int, stop: int) -> bool:
    """Whether rows ``start..stop`` are all made of the same bytes, as other rows are; see ``Item.together``."""
    return bool(item.together) and start < stop and start // item.together == (stop - 1) // item.together


class SourceDigest:
    """A digest that is known."""

    is_known = True

    def __init__(self, value: bytes) -> None:
        self._value = value

    def advance(self, share: float) -> None:
        """Take in the bytes of the first ``share`` (0 to 1) of the rows, as far as that is not done."""

    def complete(self) -> bytes:
        """The 16 bytes."""
        return self._value


class _DigestOfSpans(SourceDigest):
    """One that takes in bytes right after rows were made of them, so that they come from memory once.

    A change between the two shows in the identity of the file, which is looked at before a chunk is committed.
    """

    is_known = False

    def __init__(self, spans: Iterable[Span], wanted: Callable[[], bool]) -> None:
        super().__init__(_UNKNOWN)
        self._digest = xxhash.xxh3_128()
        self._wanted = wanted
        self._left = [span for span in spans if span.length or span.file.pin][::-1]
        self._total = sum(length for file, _, length in self._left if not file.pin)
        self._taken = 0

    def advance(self, share: float) -> None:
        """See ``SourceDigest``; the spans are taken as if rows lay in them evenly."""
        until = self._total if share >= 1 else int(self._total * share)
        while self._left and (self._left[-1].file.pin or self._taken < until):
            file, offset, length = self._left.pop()
            if file.pin:
                self._digest.update(file.pin)
                continue
            if not self._wanted():
                raise Stopped("the computation of these digests was cancelled")
            n = min(length, _READ_BYTES, until - self._taken)
            self._digest.update(file.view(offset, n).data)
            self._taken += n
            if n < length:
                self._left.append(Span(file, offset + n, length - n))

    def complete(self) -> bytes:
        """The 16 bytes, once all are taken in."""
        self.advance(1.0)
        return self._digest.digest()


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
