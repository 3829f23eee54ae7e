"""State spaces of the second kind, as runtimes want their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...kit import NEGATIVE_EXP, Mapped, Reshaped, squeezed
from ...rows import Rows
from ..config import Config
from ..family import Transform
from ..names import plain_name


def column(rows: Rows, _config: Config) -> Rows:
    """A number for each head, one below the other."""
    return Reshaped(rows, (rows.shape[0], 1))


def decay(rows: Rows, _config: Config) -> Rows:
    """The decay of each head from its logarithm."""
    return Reshaped(Mapped(rows, NEGATIVE_EXP), (rows.shape[0], 1))


def parts(groups: Callable[[Config], int]) -> Mapping[str, Transform]:
    """What becomes of the parts; ``groups`` that a norm is over."""
    return {
        "ssm_conv1d": lambda rows, _: squeezed(rows), "ssm_d": column, "ssm_a": decay,
        "ssm_norm": lambda rows, c: Reshaped(rows, (groups(c), rows.shape[0] // max(groups(c), 1))),
    }  # fmt: skip


def spelled(name: str, _config: Config) -> str:
    """``name`` with the bias of time steps as one."""
    return plain_name(name).replace(".dt_bias", ".dt_proj.bias")
