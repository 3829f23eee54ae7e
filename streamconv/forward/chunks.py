"""A text's tokens in chunks of equal length, as llama.cpp's tools cut them.

Chunks do not overlap, the tail is dropped. The first token of each is replaced by the one that begins a text where the model wants
one there, so every chunk is a text of its own; what a chunk predicts are the text's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput

Tokens = NDArray[np.int32]
#: tokens of a chunk unless told otherwise
N_CTX = 512


class Chunks(NamedTuple):
    """The chunks of a text.

    Attributes
    ----------
    inputs : int32[n_chunks, n_ctx] what the model is given
    targets : int32[n_chunks, n_scored] the tokens that follow positions ``first_scored`` to ``n_ctx - 2``
    """

    inputs: Tokens
    targets: Tokens

    @property
    def first_scored(self) -> int:
        """The first position of a chunk whose prediction counts: it has half a chunk before it."""
        return int(self.inputs.shape[1]) // 2


def cut(
    tokens: Sequence[int], n_ctx: int, *, skip: int = 0, limit: int | None = None, bos: int | None = None
) -> Chunks:
    """Cut ``tokens``, those of a whole text with what begins it, into chunks.

    Parameters
    ----------
    n_ctx : tokens of a chunk
    skip : chunks that are left out at the beginning
    limit : the most chunks; None: all
    bos : the token that begins every chunk, if the model wants one

    Raises
    ------
    BadInput : the text has fewer than two chunks, or than ``skip`` and more than two
    """
    n_tokens = len(tokens)
    if skip and n_tokens <= (skip + 2) * n_ctx:
        raise BadInput(
            f"the text has {n_tokens} tokens: too few to leave out {skip} chunks of {n_ctx}",
            f"More than {(skip + 2) * n_ctx} are needed; give a longer text or a smaller -c.",
        )
    if n_tokens - skip * n_ctx < 2 * n_ctx:
        raise BadInput(
            f"the text has {n_tokens} tokens: chunks of {n_ctx} need at least {2 * n_ctx}",
            "Give a longer text, or a smaller -c.",
        )
    n_chunks = (n_tokens - skip * n_ctx) // n_ctx
    n_chunks = n_chunks if limit is None else min(n_chunks, limit)
    original = np.array(tokens[skip * n_ctx : (skip + n_chunks) * n_ctx], np.int32).reshape(n_chunks, n_ctx)
    inputs = original.copy()
    if bos is not None:
        inputs[:, 0] = bos
    return Chunks(inputs, original[:, n_ctx // 2 + 1 :].copy())
