"""Adds up importance matrices as llama-imatrix does with the files of ``--in-file``: to count on, or to convert them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..rows import Floats
from .imatrix_files import Entry, ImatrixFile, Shape

Counts = NDArray[np.int64]
#: their number is 32 bits wide in both formats
MOST_TOKENS = 1 << 31
_OTHER_MODEL = "Add only files that were made with the same model."


def chunk_size_of(files: Iterable[ImatrixFile], usual: int) -> int:
    """Tokens per chunk as the first file states them that does."""
    return next((f.chunk_size for f in files if f.chunk_size), usual)


class Sums:
    """Several files as one; sums are added when they are asked for.

    Parameters
    ----------
    chunk_size : tokens of a chunk; what the older format counts in chunks is multiplied by it

    Attributes
    ----------
    shapes, counts : by name; int64[n_mat] tokens that reached each matrix
    datasets : of all files, in their order

    Raises
    ------
    BadInput : entries of one name have different lengths, or their counts are no numbers of tokens
    """

    def __init__(self, files: Sequence[ImatrixFile], chunk_size: int) -> None:
        self._files, self.chunk_size = files, chunk_size
        self.datasets = [text for file in files for text in file.datasets]
        self.shapes: dict[str, Shape] = {}
        self.counts: dict[str, Counts] = {}
        for name in dict.fromkeys(name for file in files for name in file.entries):
            self.counts[name] = self._counts(name)
            n_mat, first = len(self.counts[name]), next(self._of(name))[1]
            self.shapes[name] = Shape(name, n_mat, first.sums.size // n_mat)

    @property
    def n_chunks(self) -> int:
        """Chunks that the most frequent matrix was reached by."""
        return max((int(c.max()) for c in self.counts.values()), default=0) // self.chunk_size

    def sums(self, name: str) -> Floats:
        """float32[n_mat, n_cols] squared activations of one entry.

        Raises
        ------
        BadInput : NaN or Inf is among them
        """
        shape = self.shapes[name]
        total = np.zeros((shape.n_mat, shape.n_cols), np.float32)
        for file, entry in self._of(name):
            with np.errstate(over="ignore", invalid="ignore"):  # told below, by name
                total += (entry.sums * np.float32(self._factor(file))).reshape(total.shape)
            if not np.isfinite(total).all():
                raise BadInput(f"{file.path}: the entry for {name} holds NaN or Inf")
        return total

    def _of(self, name: str) -> Iterator[tuple[ImatrixFile, Entry]]:
        return ((file, file.entries[name]) for file in self._files if name in file.entries)

    def _factor(self, file: ImatrixFile) -> int:
        return self.chunk_size if file.chunk_size is None else 1

    def _counts(self, name: str) -> Counts:
        """A single count of one file stands for all matrices of another."""
        total, size = np.zeros(1, np.int64), 0
        for file, entry in self._of(name):
            counts = np.rint(entry.counts.astype(np.float64) * self._factor(file))
            if (size and entry.sums.size != size) or not {len(counts), len(total)} <= {1, max(len(counts), len(total))}:
                raise BadInput(
                    f"{file.path}: the entry for {name} has another shape than in the files before", _OTHER_MODEL
                )
            if not ((counts >= 0) & (total + counts < MOST_TOKENS)).all():
                raise BadInput(f"{file.path}: the counts of {name} are not numbers of tokens")
            total, size = total + counts.astype(np.int64), entry.sums.size
        if size % len(total):
            raise BadInput(f"the entries for {name} have {size} values for {len(total)} matrices", _OTHER_MODEL)
        return total

    def refuse_others(self, own: Iterable[Shape]) -> None:
        """BadInput where an entry does not fit that of a model."""
        for mine in own:
            theirs = self.shapes.get(mine.name)
            if theirs is not None and (
                theirs.n_mat * theirs.n_cols != mine.n_mat * mine.n_cols or theirs.n_mat not in (1, mine.n_mat)
            ):
                raise BadInput(
                    f"--in-file: the entry for {mine.name} is {theirs.n_mat} x {theirs.n_cols}, that of this model"
                    f" {mine.n_mat} x {mine.n_cols}",
                    _OTHER_MODEL,
                )
