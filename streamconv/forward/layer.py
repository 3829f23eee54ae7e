"""What one layer computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .rope import Rope


@dataclass(frozen=True)
class Layer:
    """What one layer computes.

    Attributes
    ----------
    mixers : what tokens learn of earlier ones by, side by side: ``attention``, ``latent`` (MLA), ``delta`` (gated delta rule),
        ``scan`` (Mamba), ``convolution``; none in layers that only feed
    feeds : whether there is a second half
    n_heads, n_kv : heads of queries, of keys and values
    k_size, v_size : numbers of a head
    window : how many positions back a token sees, itself included; 0: all
    scale, cap : what scores are multiplied by, and capped at (0: not)
    rope : None where nothing is rotated
    chunked : the window begins at a multiple of its length
    temperature : what the logarithm of positions counts in scores, positions of one step of it, and what is added to positions
    value_scale : what attention gives is multiplied by
    curve : numbers that the activation takes
    limits : of gates and of what they are multiplied with, in experts and beside them; 0: none
    bare_norms : rotated queries and keys are normed, without a weight
    slope : what the steepest scores fall by with distance, as the exponent of 2 (ALiBi); 0: they do not
    kv_of : the slot whose keys and values, of an earlier layer, are used; ``kv_to``: the slot they are left in
    n_experts_used : 0 where there are no experts
    sparsity : how many deviations above the mean an activation must lie; -inf: any
    """

    number: int
    mixers: tuple[str, ...]
    feeds: bool
    n_heads: int
    n_kv: int
    k_size: int
    v_size: int
    window: int
    scale: float
    cap: float
    rope: Rope | None
    kv_of: int | None = None
    kv_to: int | None = None
    n_experts_used: int = 0
    sparsity: float = -math.inf
    slope: float = 0.0
    chunked: bool = False
    temperature: tuple[float, int, float] = (0.0, 1, 0.0)
    value_scale: float = 1.0
    curve: tuple[float, ...] = ()
    limits: tuple[float, float] = (0.0, 0.0)
    bare_norms: bool = False

    def name(self, tensor: str) -> str:
        """The full name of its ``tensor``."""
        return f"blk.{self.number}.{tensor}"


@dataclass(frozen=True)
class Recurrence:
    """Sizes of layers that keep a matrix for each head: heads of keys and of values, and numbers of one each."""

    n_keys: int
    n_values: int
    k_size: int
    v_size: int
