"""Importance matrices: how much each input column of a matrix matters, measured by ``llama-imatrix``.

The weight of a column is its mean squared activation: sum / count, in float32. An expert the calibration never reached
has weight 1 everywhere.

Several files are merged: sums and counts are added, file after file. The older format holds, per chunk of text, mean
squares: its values are added to its values and its calls to its calls. Where both formats meet, values and calls of the
older are multiplied by the tokens per chunk that the GGUF files state, so that they too count tokens (``llama-imatrix
--in-file`` does the same).

Source: llama.cpp ``tools/quantize`` (reading) and ``tools/imatrix`` (merging), ggml 0.25.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import BadInput, UsageError
from ..rows import Floats
from .imatrix_files import Entry, ImatrixFile, read_imatrix_file

#: tensors whose entry is ignored when its length is wrong, as the reference does
_LENIENT = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})


class Imatrix:
    """The importance weights of a model, read where they lie.

    Iterating gives the names with weights; ``name in imatrix`` and ``len`` work.

    Attributes
    ----------
    files : what it was read from
    dataset : first calibration text that a file names, else empty
    entries_count : number of names
    chunks_count : chunks of text seen, over all files
    """

    def __init__(self, files: Sequence[ImatrixFile], keep: Iterable[str] | None = None) -> None:
        self._files = files
        self.files: tuple[Path, ...] = tuple(f.path for f in files)
        self.dataset = next((d for f in files for d in f.datasets), "")
        self.chunks_count = sum(f.chunks for f in files)
        names = dict.fromkeys(name for f in files for name in f.entries)
        wanted = names if keep is None else set(keep)
        self._entries: dict[str, list[tuple[ImatrixFile, Entry]]] = {
            name: [(f, f.entries[name]) for f in files if name in f.entries] for name in names if name in wanted
        }

    @property
    def entries_count(self) -> int:
        """Number of names, after including and excluding."""
        return len(self._entries)

    @cached_property
    def measured(self) -> frozenset[str]:
        """Names with weights in any of the files, those included that were left out when they were opened."""
        return frozenset(name for f in self._files for name in f.entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @cached_property
    def digest(self) -> str:
        """Hex digest of the files' bytes and of the names kept; tells two importance matrices apart."""
        state = hashlib.blake2b(digest_size=16)
        for path in self.files:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    state.update(block)
        state.update("\n".join(self._entries).encode())
        return state.hexdigest()

    def weights(self, name: str, n_cols: int, n_experts: int = 1) -> Floats | None:
        """The importance of each column of each expert, or None when there is no entry.

        Parameters
        ----------
        name : of the tensor in the input
        n_cols : its columns
        n_experts : its experts, 1 for a matrix

        Returns
        -------
        float32[n_experts, n_cols], finite

        Raises
        ------
        BadInput : the entry has another length, or holds NaN or Inf
        """
        found = self._entries.get(name)
        if found is None:
            return None
        length = found[0][1].sums.size
        if length != n_cols * n_experts:
            if name in _LENIENT:
                return None
            shape = f"{n_experts} x {n_cols}" if n_experts > 1 else f"{n_cols}"
            raise BadInput(
                f"{self.files[0]}: the entry for {name} has {length} values, the tensor needs {shape}",
                "the importance matrix was made from another model",
            )
        sums, counts = self._merged(name, found)
        rounded = np.floor(counts.astype(np.float64) + 0.5).astype(np.float32)[:, None]
        with np.errstate(all="ignore"):
            if len(found) == 1 and found[0][0].chunk_size is None and rounded[0, 0] <= 0:
                result = sums.astype(np.float32)  # the older format without calls holds finished weights
            else:
                result = np.where(rounded > 0, sums / rounded, np.float32(1))
        if not (np.isfinite(result).all() and np.isfinite(counts).all()):
            raise BadInput(f"{self.files[0]}: the entry for {name} holds NaN or Inf")
        return result.reshape(n_experts, n_cols)

    def visits(self, name: str) -> Floats | None:
        """float32[n_mat] how many tokens each expert of ``name`` was reached by, or None when there is no entry."""
        found = self._entries.get(name)
        return None if found is None else self._merged(name, found)[1]

    def _merged(self, name: str, found: list[tuple[ImatrixFile, Entry]]) -> tuple[Floats, Floats]:
        """Sums and counts of all files that know ``name``: float32[n_mat, n_cols] and float32[n_mat]."""
        if len(found) == 1:
            return found[0][1].sums, found[0][1].counts
        chunk_size = next((f.chunk_size for f, _ in found if f.chunk_size), 1)
        n_mat = max(entry.counts.size for _, entry in found)
        first = found[0][1].sums
        sums = np.zeros((n_mat, first.size // n_mat), np.float32)
        counts = np.zeros(n_mat, np.float32)
        for file, entry in found:
            if entry.sums.size != first.size or n_mat % entry.counts.size:
                raise BadInput(
                    f"{file.path}: the entry for {name} has {entry.sums.size} values, {first.size} in {found[0][0].path}",
                    "importance matrices can be merged when they were made from the same model",
                )
            factor = np.float32(chunk_size if file.chunk_size is None else 1)
            sums += entry.sums.reshape(sums.shape) * factor
            counts += np.repeat(entry.counts, n_mat // entry.counts.size) * factor
        return sums, counts


def load_imatrix(paths: Path | Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Imatrix:
    """Open importance matrices and merge them.

    Parameters
    ----------
    paths : files of either format
    include : keep only entries whose name contains one of these
    exclude : leave out entries whose name contains one of these; not together with ``include``

    Raises
    ------
    UsageError : both ``include`` and ``exclude`` are given, or no file
    InputMissing, NoPermission : a file cannot be opened
    BadInput : a file is damaged, or not an importance matrix
    """
    if include and exclude:
        raise UsageError("weights can be included or excluded, not both")
    files = [read_imatrix_file(Path(p)) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not files:
        raise UsageError("no importance matrix is named")
    names = dict.fromkeys(name for f in files for name in f.entries)
    if include:
        return Imatrix(files, [name for name in names if any(part in name for part in include)])
    return Imatrix(files, [name for name in names if not any(part in name for part in exclude)])
