"""Opens whatever a user names as a model that can be run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import forward
from ..errors import UsageError
from ..rows import Floats
from ..sources.checkpoint import Checkpoint
from .opening import Opener
from .options import Options
from .runnable import as_runnable


def open_runnable(
    source: str | os.PathLike[str],
    options: Options | None = None,
    opener: Opener | None = None,
    with_tokenizer: bool = True,
) -> tuple[forward.Model, Checkpoint]:
    """The model that ``source`` names, and what it is read from: a GGUF file, a checkpoint however it is packed, a recipe, …

    Parameters
    ----------
    with_tokenizer : whether the metadata has the tokenizer's keys; of checkpoints whose pre-tokenizer is not known there are none

    Raises
    ------
    BadInput : something in it cannot be computed here; and see ``Opener.open``
    """
    options = options or Options()
    return as_runnable((opener or Opener(options)).open(source), options, str(source), with_tokenizer)


def logits(source: str | os.PathLike[str], token_ids: Sequence[int] | NDArray[np.integer]) -> Floats:
    """See ``streamconv.logits``."""
    model, _ = open_runnable(source, with_tokenizer=False)
    ids = np.asarray(token_ids)
    if ids.ndim != 1 or not len(ids) or not np.issubdtype(ids.dtype, np.integer):
        raise UsageError(f"token ids are a list of whole numbers, not {type(token_ids).__name__} of shape {ids.shape}")
    n_tokens = model.rows["token_embd.weight"].shape[0]
    if ids.min() < 0 or ids.max() >= n_tokens:
        raise UsageError(
            f"token ids are from 0 to {n_tokens - 1}; there is one of {ids.min() if ids.min() < 0 else ids.max()}"
        )
    tokens = ids.astype(np.int32)[None]
    hidden = forward.embed(model, tokens)
    for number in range(model.n_layers):
        after = np.zeros_like(hidden)
        forward.run_layer(model, number, tokens, hidden, after)
        hidden = after
    return forward.logits(model, hidden[0])
