"""Random words for the elements of a tensor, the same wherever and in whatever order they are made."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..kernels import load
from ..rows import Described, Floats, Json
from .scratch import borrow


class CounterRandom(Described):
    """A stream of 32-bit words.

    Parameters
    ----------
    seed : of the run
    what : everything that tells this stream from others: document, tensor, number of the model

    Attributes
    ----------
    key : uint32[2] of the generator
    """

    def __init__(self, seed: int, *what: object) -> None:
        text = "\0".join(map(str, (seed, *what)))
        self.key = np.frombuffer(xxhash.xxh3_64_digest(text.encode()), ">u4").astype(np.uint32)

    def identity(self) -> Json:
        """As in all rows; with the name that plans of earlier versions recorded."""
        _, *rest = super().identity()
        return ["Chance", *rest]

    def words(self, first: int, out: NDArray[np.uint32]) -> None:
        """Fill ``out`` uint32[n] with the words of elements ``first`` … ``first + n - 1``."""
        kernels = load(".merging.kernels.random")
        block, skip = divmod(first, 4)
        n_blocks = -(-(skip + len(out)) // 4)
        with borrow(n_blocks, 4) as scratch:
            words = scratch.reshape(-1).view(np.uint64)
            kernels.philox(self.key, block, words.reshape(-1, 2))
            out[...] = words.view(np.uint32)[skip : skip + len(out)]

    def normals(self, first: int, out: Floats) -> None:
        """Fill ``out`` float32[n] with normally distributed numbers of these elements, mean 0 and variance 1."""
        kernels = load(".merging.kernels.random")
        with borrow(len(out)) as scratch:
            words = scratch.view(np.uint32)
            self.words(first, words)
            kernels.normals(words, out)
