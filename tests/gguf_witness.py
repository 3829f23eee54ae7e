"""The reader of the ``gguf`` package as a witness: it opens every GGUF file that a test converts, before the file gets its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from streamconv.targets import gguf as target
from streamconv.targets.layout import FileLayout, TensorInfo

#: types that the package knows; a file that holds another (Q2_0) it cannot open
KNOWN = frozenset(t.name for t in gguf.GGMLQuantizationType)
_lay_out = target.layout


class Reader(gguf.GGUFReader):
    """The package's reader on a plain array: for each of a hundred thousand slices ``numpy.memmap`` takes twice as long."""

    @property
    def data(self) -> np.ndarray:
        """uint8[size of the file]"""
        return self._data

    @data.setter
    def data(self, mapped: np.ndarray) -> None:
        self._data = np.asarray(mapped)


def layout(path: Path, metadata: Any, tensors: Sequence[TensorInfo], **settings: Any) -> list[FileLayout]:
    """As ``targets.gguf.layout``, with files that the witness reads before they get their names."""
    files = _lay_out(path, metadata, tensors, **settings)
    return [
        replace(f, accept=partial(accept, f, tensors))
        if all(tensors[n].type.name in KNOWN for n, _ in f.tensors)
        else f
        for f in files
    ]


def accept(file: FileLayout, tensors: Sequence[TensorInfo], path: Path) -> None:
    """Compare what the package reads in ``path`` with what ``file`` was laid out to be; AssertionError where they differ."""
    reader = Reader(path)
    read = [(t.name, t.tensor_type.name, t.shape.tolist(), t.data_offset, t.n_bytes) for t in reader.tensors]
    assert read == [
        (t.name, t.type.name, list(t.shape[::-1] or (1,)), offset, t.n_bytes)
        for t, offset in ((tensors[n], offset) for n, offset in file.tensors)
    ], path
