"""A checkpoint that is open, as a model that can be run."""

from __future__ import annotations

from dataclasses import replace

from .. import forward, models
from ..sources.checkpoint import Checkpoint
from .options import Options


def as_runnable(
    checkpoint: Checkpoint, options: Options, where: str, with_tokenizer: bool = True
) -> tuple[forward.Model, Checkpoint]:
    """The model in ``checkpoint``, and the checkpoint as it was understood.

    Parameters
    ----------
    where : what messages call it
    with_tokenizer : see ``open_runnable``

    Raises
    ------
    BadInput : something in it cannot be computed here
    """
    if checkpoint.metadata is not None:
        return forward.open_model(checkpoint.tensors, checkpoint.metadata, where), checkpoint
    checkpoint = models.named(checkpoint)
    family = models.family_of(checkpoint)
    if not with_tokenizer:
        family = replace(family, tokenizer=None)
    built = models.build(checkpoint, family, pre=options.pre)
    return forward.open_model(built.tensors, built.metadata, where), checkpoint
