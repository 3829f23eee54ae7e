"""Making chunks, wherever that is done: rows go through their item a few MiB at a time, and the bytes to where they belong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xxhash

from ..rows import Bytes, Quality
from .budget import Budget
from .changes import SourceDigests
from .index_file import CommitRecord
from .plan import Chunk

#: parts of a buffer begin at multiples of this many bytes, so that kernels see aligned arrays
_ALIGNMENT = 64
#: rows are made in pieces of this many tiles, whose bytes are still in the second-level cache when the digest takes them in
_PIECE_TILES = 4

#: ``put(file, data, offset)`` writes all of ``data`` at ``offset`` of output file number ``file``
Put = Callable[[int, memoryview, int], None]


class _Sink:
    """Where one chunk's bytes go as they are made."""

    def __init__(self, chunk: Chunk, put: Put) -> None:
        self._chunk, self._put = chunk, put
        self._at = chunk.offset
        self._digest = xxhash.xxh3_128()
        self.quality = Quality()

    def put(self, out: Bytes) -> None:
        """The next rows: uint8[n_rows, row_bytes]."""
        data = out.reshape(-1).data
        self._put(self._chunk.file, data, self._at)
        self._digest.update(data)
        self._at += len(data)

    def commit_record(self, source: bytes) -> CommitRecord:
        """What the index is to say of the finished chunk, made from bytes with the digest ``source``."""
        c, q = self._chunk, self.quality
        return CommitRecord(
            c.number, c.file, c.offset, c.length, c.stop - c.start, self._digest.digest(),
            q.sum_squared_error, q.max_error, min(q.nonfinite, 0xFFFFFFFF), source=source,
        )  # fmt: skip


class Maker:
    """Makes chunks, one bundle after the other, in memory of its own.

    Parameters
    ----------
    put : where bytes go
    sources : digests of what chunks are made from
    wanted : whether chunks are still wanted; looked at every few MiB
    """

    def __init__(self, budget: Budget, put: Put, sources: SourceDigests, wanted: Callable[[], bool]) -> None:
        self._put, self._sources, self._wanted = put, sources, wanted
        self._buffer = np.empty(budget.buffer_bytes, np.uint8)
        self._scratch = np.empty(budget.scratch_floats, np.float32)

    def make(self, bundle: list[Chunk]) -> list[CommitRecord] | None:
        """Make the chunks of ``bundle``, of the same rows; None when they were no longer wanted before they were complete."""
        item, first, last = bundle[0].item, bundle[0].start, bundle[0].stop
        buffer, scratch = self._buffer, self._scratch
        sinks = [_Sink(c, self._put) for c in bundle]
        source = self._sources.alongside(item, first, last)
        row_bytes = sum(-(-item.row_bytes[c.part] // _ALIGNMENT) * _ALIGNMENT for c in bundle)
        step = max(1, min(len(buffer) // row_bytes, last - first))
        piece = step if source.is_known else max(1, _PIECE_TILES * len(scratch) // item.n_cols)
        outs: list[Bytes | None] = [None] * len(item.row_bytes)
        for start in range(first, last, step):
            if not self._wanted():
                return None
            stop = min(start + step, last)
            at = 0
            for c in bundle:
                n_bytes = (stop - start) * item.row_bytes[c.part]
                outs[c.part] = buffer[at : at + n_bytes].reshape(stop - start, -1)
                at += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
            for a in range(start, stop, piece):
                b = min(a + piece, stop)
                qualities = item.fill(
                    a, b, [None if out is None else out[a - start : b - start] for out in outs], scratch
                )
                source.advance((b - first) / (last - first))
                for c, sink in zip(bundle, sinks, strict=True):
                    sink.quality.add(qualities[c.part])
            for c, sink in zip(bundle, sinks, strict=True):
                out = outs[c.part]
                assert out is not None
                sink.put(out)
        digest = source.complete()
        return [sink.commit_record(digest) for sink in sinks]
