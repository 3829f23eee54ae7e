"""Adds importance matrices up, as llama-imatrix does with the files of ``--in-file``; to count on from there, or to convert them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Floats
from .imatrix_files import ImatrixFile, Shape


@dataclass
class Total:
    """What one entry has in all files.

    Attributes
    ----------
    sums : float32[n_counts, n] squared activations
    counts : int64[n_counts] tokens
    """

    sums: Floats
    counts: NDArray[np.int64]


@dataclass
class Added:
    """Several files as one.

    Attributes
    ----------
    datasets : of all files, in their order
    chunk_size : tokens of a chunk
    """

    chunk_size: int
    entries: dict[str, Total] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)

    @property
    def n_chunks(self) -> int:
        """Chunks that the most frequent matrix was reached by."""
        return max((int(t.counts.max()) for t in self.entries.values()), default=0) // self.chunk_size

    def shapes(self) -> list[Shape]:
        """The entries as they are written."""
        return [Shape(name, len(t.counts), t.sums.shape[1], len(t.counts)) for name, t in self.entries.items()]


def chunk_size_of(files: Iterable[ImatrixFile], usual: int) -> int:
    """Tokens per chunk that the files state, where they state one; the first where they differ."""
    return next((f.chunk_size for f in files if f.chunk_size), usual)


def added(files: Iterable[ImatrixFile], chunk_size: int) -> Added:
    """Add ``files`` up.

    Parameters
    ----------
    chunk_size : tokens of a chunk; what the older format counts in chunks is multiplied by it

    Raises
    ------
    BadInput : entries of one name have different lengths, or hold NaN or Inf
    """
    result = Added(chunk_size)
    for file in files:
        factor = np.float32(chunk_size if file.chunk_size is None else 1)
        for name, entry in file.entries.items():
            sums, counts = entry.sums * factor, np.rint(entry.counts * factor)
            if not (np.isfinite(sums).all() and np.isfinite(counts).all() and (counts >= 0).all()):
                raise BadInput(f"{file.path}: the entry for {name} holds NaN, Inf or negative counts")
            found = Total(sums.reshape(len(counts), -1), counts.astype(np.int64))
            before = result.entries.get(name)
            try:
                result.entries[name] = found if before is None else plus(before, found)
            except ValueError:
                raise BadInput(
                    f"{file.path}: the entry for {name} has {sums.size} values for {len(counts)} matrices, in the files before"
                    f" it has another shape",
                    "Add only files that were made with the same model.",
                ) from None
        result.datasets += file.datasets
    if not result.entries:
        raise BadInput("the importance matrices are empty")
    return result


def plus(a: Total, b: Total) -> Total:
    """The sum of two; where one has a single count, it stands for all matrices of the other. ValueError: other shapes."""
    n = max(len(a.counts), len(b.counts))
    if a.sums.size != b.sums.size or not {len(a.counts), len(b.counts)} <= {1, n}:
        raise ValueError("the shapes differ")
    counts = np.broadcast_to(a.counts, n) + np.broadcast_to(b.counts, n)
    return Total(a.sums.reshape(n, -1) + b.sums.reshape(n, -1), counts)


def merged_shapes(own: Iterable[Shape], before: Mapping[str, Total]) -> list[Shape]:
    """The entries of a file that has ``own`` and those ``before``.

    Raises
    ------
    BadInput : two of one name have different lengths
    """
    result = {s.name: s for s in own}
    for name, total in before.items():
        mine = result.get(name)
        if mine is None:
            result[name] = Shape(name, len(total.counts), total.sums.shape[1], len(total.counts))
        elif mine.n_mat * mine.n_cols != total.sums.size or len(total.counts) not in (1, mine.n_counts):
            raise BadInput(
                f"--in-file: the entry for {name} has {total.sums.size} values, this model's has {mine.n_mat * mine.n_cols}",
                "Add only files that were made with the same model.",
            )
    return list(result.values())
