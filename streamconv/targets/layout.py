"""What every target says of its files: which bytes come first, and where each tensor's bytes go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..quant.types import TensorType


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the output: ``shape`` slowest dimension first, logical (not bytes)."""

    name: str
    shape: tuple[int, ...]
    type: TensorType

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensor's data without padding."""
        return math.prod(self.shape[:-1]) * self.type.row_bytes(self.shape[-1] if self.shape else 1)


@dataclass(frozen=True)
class FileLayout:
    """One file of an output.

    Attributes
    ----------
    path : final name
    header : the bytes before the data
    size : of the whole file
    tensors : ``(tensor number, absolute offset)`` of each tensor in it
    accept : reads the finished file as its users will, before it gets its name; raises StreamconvError where they could not
    """

    path: Path
    header: bytes
    size: int
    tensors: Sequence[tuple[int, int]]
    accept: Callable[[Path], None] | None = None


def split(tensors: Sequence[TensorInfo], max_bytes: int = 0, max_tensors: int = 0) -> list[list[int]]:
    """Numbers of the tensors of each shard; a shard is closed before the tensor that would pass a limit (0 = none)."""
    shards: list[list[int]] = [[]]
    filled = 0
    for number, t in enumerate(tensors):
        full = (max_tensors and len(shards[-1]) >= max_tensors) or (max_bytes and filled + t.n_bytes > max_bytes)
        if shards[-1] and full:
            shards.append([])
            filled = 0
        shards[-1].append(number)
        filled += t.n_bytes
    return shards
