"""A file cut into frames, and what a frame is packed to.

Where a tensor of bfloat16 or float16 lies, frames are planes of its bytes; everything else is packed as it is. A frame never
holds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..file_names import GGUF, TORCH, container_of
from ..kernels import load
from ..rows import Bytes, Rows, Span, matrix_shape
from ..sources.gguf import GgufFile
from ..sources.gguf_header import parse_header
from ..sources.mapped import MappedFile
from ..sources.pack import scratch
from ..sources.pack_format import FRAME_BYTES
from ..sources.safetensors import read_safetensors
from ..sources.torch import read_torch

#: types whose numbers are split, and what share of their bytes is left, about
_SPLIT = {"BF16": 0.67, "F16": 0.85}
#: shorter runs of such numbers stay with what is around them
_LEAST_BYTES = 64 << 10
#: zstd's fastest level; of planes, a table of matches as small as can be: what it finds in exponents costs more than their
#: Huffman codes, and without it packing takes half the time (bench/pack.py)
_LEVEL, _HASH_LOG = 1, 6


class Frame(NamedTuple):
    """Bytes ``start..stop`` of a file, as planes or as they are."""

    start: int
    stop: int
    is_planes: bool


class Survey(NamedTuple):
    """What is known of a file before it is packed.

    Attributes
    ----------
    data_start : as ``MappedFile.describe`` takes it
    frames : all of it, in order
    estimate : bytes that it will be packed to, about
    """

    data_start: int
    frames: Sequence[Frame]
    estimate: int


def survey(file: MappedFile) -> Survey:
    """Cut ``file`` by what its headers say.

    Errors: see the reader of its container.
    """
    data_start, tensors = _tensors(file)
    numbers: list[tuple[int, int]] = []
    saved = 0.0
    spans = (
        (span.offset, span.length, rows.dtype) for rows in tensors if rows.dtype in _SPLIT for span in _spans(rows)
    )
    for start, length, dtype in sorted(spans):
        stop = start + length - length % 2
        last = numbers[-1] if numbers else (0, 0)
        if numbers and start <= last[1] and (start - last[0]) % 2 == 0:
            numbers[-1] = last[0], max(last[1], stop)
        elif start >= last[1]:
            numbers.append((start, stop))
        saved += length * (1 - _SPLIT[dtype])
    runs = [run for run in numbers if run[1] - run[0] >= _LEAST_BYTES]
    return Survey(data_start, list(_cut(runs, file.size)), max(file.size - int(saved), file.size // 2))


def _tensors(file: MappedFile) -> tuple[int, Iterable[Rows]]:
    """Where the data of a file begin, and its tensors."""
    container = container_of(file.path.name)
    if container is GGUF:
        gguf = GgufFile(file, parse_header(file))
        return min(gguf.header.data_start, file.size), [gguf.rows(info) for info in gguf.tensors.values()]
    if container is TORCH:
        return 0, read_torch(file).tensors.values()
    found = read_safetensors(file)
    return found.data_start, found.tensors.values()


def _spans(rows: Rows) -> Iterator[Span]:
    return rows.spans(0, matrix_shape(rows.shape)[0])


def _cut(runs: Sequence[tuple[int, int]], size: int) -> Iterator[Frame]:
    """Frames over ``size`` bytes, of which ``runs`` are numbers to be split."""
    at = 0
    for start, stop, is_planes in [*((*run, True) for run in runs), (size, size, False)]:
        yield from _pieces(at, start, False)
        yield from _pieces(start, stop, is_planes)
        at = stop


def _pieces(start: int, stop: int, is_planes: bool) -> Iterator[Frame]:
    return (Frame(at, min(at + FRAME_BYTES, stop), is_planes) for at in range(start, stop, FRAME_BYTES))


def packed(data: Bytes, is_planes: bool) -> bytes:
    """The frame of ``data``, uint8[at most FRAME_BYTES]."""
    import zstandard

    settings = {"hash_log": _HASH_LOG, "chain_log": _HASH_LOG} if is_planes else {}
    if is_planes:
        planes = scratch()[: len(data)]
        load(".sources.kernels.planes").split(data, planes)
        data = planes
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(data), write_checksum=True, write_content_size=True, **settings
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data.data)


def version() -> str:
    """What decides the bytes of a frame besides its content: another zstd may pack the same content otherwise."""
    import zstandard

    return f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, level {_LEVEL}, hash log {_HASH_LOG}, planes 1"
