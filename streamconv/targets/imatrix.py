"""Files of importance matrices, as llama-imatrix writes them: GGUF, and the older ``.dat``; ``quant.imatrix_files`` reads both.

Entries lie in the order of their names, so those of one block lie side by side, and where each lies follows from names and shapes.
In GGUF the tensors of an entry are its sums and its counts; in ``.dat``, which tells no experts apart, values are means times the
number of chunks, 1 for an expert that was not reached.

Source: llama.cpp ``tools/imatrix`` (ggml 0.25.3).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..metadata import Metadata, Value
from ..quant.imatrix_files import Shape
from ..quant.types import TYPES
from . import gguf
from .layout import TensorInfo

#: the ending of the older format
DAT = ".dat"


@dataclass(frozen=True)
class ImatrixLayout:
    """A file whose entries have no values yet.

    Attributes
    ----------
    header, tail : what is before and behind the entries
    size : of the whole file
    places : name -> offset and length of what ``encode`` makes of the entry, in the order of the file
    chunk_size : tokens of a chunk
    """

    path: Path
    header: bytes
    tail: bytes
    size: int
    places: Mapping[str, tuple[int, int]]
    chunk_size: int

    def encode(self, shape: Shape, sums: NDArray[np.floating], counts: NDArray[np.integer]) -> bytes:
        """The bytes of one entry: ``sums``, float[n_mat, n_cols], and ``counts``, int[n_mat]."""
        return _record(shape, sums, counts, self.chunk_size) if self.path.suffix == DAT else _tensors(sums, counts)


def layout(
    path: Path, shapes: Sequence[Shape], datasets: Sequence[str], n_chunks: int, chunk_size: int, job: str = ""
) -> ImatrixLayout:
    """Lay out the file ``path``, in the format that its ending says.

    Parameters
    ----------
    datasets : names of the texts; the older format keeps the last
    job : identifies the job, in a key of the GGUF file
    """
    ordered = sorted(shapes, key=lambda s: s.name.encode())
    if path.suffix == DAT:
        return _lay_out_dat(path, ordered, datasets, n_chunks, chunk_size)
    metadata = Metadata()
    metadata.string("general.type", "imatrix")
    # Readers want the key, and an empty list would be left out.
    metadata.values["imatrix.datasets"] = Value("ARRAY", list(datasets), "STRING")
    metadata.u32("imatrix.chunk_count", n_chunks)
    metadata.u32("imatrix.chunk_size", chunk_size)
    tensors = [
        TensorInfo(f"{s.name}.{kind}", _dimensions(s.n_mat, n_cols), TYPES["F32"])
        for s in ordered
        for kind, n_cols in (("in_sum2", s.n_cols), ("counts", 1))
    ]
    (file,) = gguf.layout(path, metadata, tensors, job_key=job)
    starts = [offset for _, offset in file.tensors]
    ends = [*starts[2::2], file.size]
    places = {s.name: (start, end - start) for s, start, end in zip(ordered, starts[::2], ends, strict=True)}
    return ImatrixLayout(path, file.header, b"", file.size, places, chunk_size)


def _dimensions(n_rows: int, n_cols: int) -> tuple[int, ...]:
    return (n_rows, n_cols) if n_rows > 1 else (n_cols,)


def _tensors(sums: NDArray[np.floating], counts: NDArray[np.integer]) -> bytes:
    parts = sums.astype("<f4").tobytes(), counts.astype("<f4").tobytes()
    return b"".join(part + bytes(-len(part) % gguf.ALIGNMENT) for part in parts)


def _lay_out_dat(
    path: Path, shapes: Sequence[Shape], datasets: Sequence[str], n_chunks: int, chunk_size: int
) -> ImatrixLayout:
    header = struct.pack("<i", len(shapes))
    at, places = len(header), {}
    for s in shapes:
        length = 12 + len(s.name.encode()) + 4 * s.n_mat * s.n_cols
        places[s.name] = at, length
        at += length
    text = datasets[-1].encode() if datasets else b""
    tail = struct.pack("<ii", n_chunks, len(text)) + text
    return ImatrixLayout(path, header, tail, at + len(tail), places, chunk_size)


def _record(shape: Shape, sums: NDArray[np.floating], counts: NDArray[np.integer], chunk_size: int) -> bytes:
    n_calls = -(-int(counts.max()) // chunk_size)
    stored = sums.astype("<f4")
    reached = counts.astype(np.float32).reshape(-1, 1)
    means = np.where(reached > 0, stored / np.maximum(reached, 1), np.float32(1)) * np.float32(n_calls)
    name = shape.name.encode()
    values: bytes = means.astype("<f4").tobytes()
    return struct.pack("<i", len(name)) + name + struct.pack("<ii", n_calls, stored.size) + values
