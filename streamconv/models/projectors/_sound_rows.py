"""What projectors of sound do to tensors: convolutions of one column, norms of batches, tables of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import BadInput
from ...kit import EXP, Constant, FoldedNorm, Reshaped, cosine, sine
from ...rows import Floats, Rows
from ..config import Config
from ..rules import Rule

#: positions that are made for encoders without a table of their own
_POSITIONS, _TIMESCALE = 1500, 10000


def one_column(rows: Rows, _config: Config) -> Rows:
    """Biases of a convolution over time, as runtimes add them; its weights as they are."""
    return Reshaped(rows, (rows.shape[0], 1)) if len(rows.shape) == 1 else rows


def one_pixel(rows: Rows, _config: Config) -> Rows:
    """The same of one over time and pitch."""
    return Reshaped(rows, (rows.shape[0], 1, 1)) if len(rows.shape) == 1 else rows


def squeezed_after(axis: int) -> Callable[[Rows, Config], Rows]:
    """Weights of a convolution without ``axis``, which is of length 1; vectors as they are."""

    def transform(rows: Rows, config: Config) -> Rows:
        if len(rows.shape) != 3:
            return rows
        if rows.shape[axis] != 1:
            raise BadInput(
                f"{config.folder}: a convolution has shape {list(rows.shape)}, axis {axis} is not of length 1"
            )
        return Reshaped(rows, tuple(n for i, n in enumerate(rows.shape) if i != axis))

    return transform


def batch_norm(source: str, target: str) -> Rule:
    """The norm ``source`` as a scale and an offset."""

    def make(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
        return [FoldedNorm(rows, is_offset=False), FoldedNorm(rows, is_offset=True)]

    parts = ("weight", "bias", "running_mean", "running_var")
    return Rule((f"{target}.weight", f"{target}.bias"), tuple(f"{source}.{part}" for part in parts), make)


def positions(width: Callable[[Config], int] = lambda c: c.hidden) -> Rule:
    """Sines and cosines of the places of 1500 frames, of a tower of sound that is ``width`` wide."""

    def make(_rows: Sequence[Rows], config: Config) -> Sequence[Rows]:
        return [Constant(_sinusoids(width(config)))]

    return Rule(("a.position_embd.weight",), (), make)


def _sinusoids(width: int) -> Floats:
    """[frames, width]: sines in the first half, cosines in the second, with the bits of the reference's."""
    if width < 4 or width % 2:
        raise BadInput(f"config.json: a tower of sound is {width} wide, which has no places by sines and cosines")
    step = np.float32(-np.log(_TIMESCALE) / (width // 2 - 1))
    pace = EXP.call(step * np.arange(width // 2, dtype=np.float32)[None])
    angles = np.arange(_POSITIONS, dtype=np.float32)[:, None] * pace
    return np.concatenate([sine(angles), cosine(angles)], axis=1)
