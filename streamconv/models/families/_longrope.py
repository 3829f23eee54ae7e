"""RoPE with a factor for each frequency, other ones in long texts than in short ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import BadInput
from ...kit import Constant
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ..rules import Rule


def has_factors(c: Config, _block: int = -1) -> bool:
    """Whether config.json has factors."""
    return c.rope.get("long_factor") is not None or c.rope.get("short_factor") is not None


def original_context(c: Config) -> int:
    """The context a model was trained with before it was stretched."""
    stated = c.rope.get("original_max_position_embeddings") or c.get("original_max_position_embeddings")
    if not isinstance(stated, int) or stated < 1:
        raise BadInput(f"config.json: 'original_max_position_embeddings' is {stated!r}, not a length")
    return stated


def stretch(c: Config) -> float:
    """What attention is scaled by in a stretched context."""
    share = c.integer("max_position_embeddings") / original_context(c)
    kind = str(c.rope.get("rope_type")).lower()
    if kind not in ("su", "longrope", "yarn"):
        raise BadInput(f"config.json: RoPE of type {kind!r} has factors, which runtimes know of 'longrope' only")
    if share <= 1:
        return 1.0
    return (
        0.1 * math.log(share) + 1 if kind == "yarn" else math.sqrt(1 + math.log(share) / math.log(original_context(c)))
    )


def attn_factor(m: Metadata, a: str, c: Config) -> None:
    """The scale of attention, where there are factors."""
    if has_factors(c):
        m.f32(f"{a}.rope.scaling.attn_factor", stretch(c))


def factor_rule(n_rotated: Callable[[Config], int]) -> Rule:
    """The factors as tensors; ``n_rotated`` tells the rotated dimensions of a head."""

    def make(_rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
        return [_factors(c, f"{length}_factor", n_rotated(c) // 2) for length in ("long", "short")]

    return Rule(("rope_factors_long.weight", "rope_factors_short.weight"), make=make, when=has_factors)


def _factors(c: Config, name: str, count: int) -> Rows:
    stated = c.rope.get(name)
    numbers = [x for x in stated if isinstance(x, (int, float)) and abs(x) < 3e38] if isinstance(stated, list) else []
    if len(numbers) != count or stated != numbers:
        raise BadInput(f"config.json: {name!r} of RoPE is not a list of {count} numbers, one for each rotated pair")
    return Constant(np.array(numbers, np.float32))
