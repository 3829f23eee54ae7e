"""What each type of each matrix costs, and the types that cost least within a budget, without what is known to do harm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ..errors import UsageError
from ..units import size
from .curves import Loss
from .planning import PlannedMix
from .pool import Matrix, Standard, bits
from .solver import Option, solve

#: below so many bits errors add up to more than their sum: bits of a type -> factor
_MORE_THAN_SUMS = ((1.75, 1.8), (2.2, 1.3), (2.6, 1.1), (3.0, 1.0))
#: bits of a type below which it is taken only where nothing else fits
_LEAST_BITS = 2.5
#: from so many bits a weight on, head and embeddings have this type at least
_GOOD_BITS, _OF_ENDS = 3.0, "Q4_K"
_ENDS = ("token_embd.weight", "output.weight")
#: of how many of the most sensitive tensors a type is refused that is this many bits below those for a little less and more
_STEADY, _STEADY_BITS, _NEARBY = 20, 0.5, 0.03
_NUMBER = re.compile(r"\d+")
#: matrices of a block that runtimes fuse where they have one type
_FUSED = re.compile(r"(blk\.\d+\.)(?:(attn)_[qkv]|(ffn)_(?:gate|up)(_exps|_shexp)?)\.weight")


def sensitivities(
    matrices: Sequence[Matrix], reference: str, cost: Mapping[str, float], curves: Mapping[str, Mapping[str, Loss]]
) -> dict[str, float | None]:
    """KL divergence for each unit of relative error; what was not measured, or shows none, has that of its nearest like."""
    direct: dict[str, float] = {}
    for m in matrices:
        error = curves[m.name][m.measured_with(reference)].error
        if cost.get(m.name, 0.0) > 0 and error > 0:
            direct[m.name] = cost[m.name] / error
    found: dict[str, float | None] = {}
    for m in matrices:
        like = [(abs(_block(name) - _block(m.name)), name) for name in direct if _kind(name) == _kind(m.name)]
        found[m.name] = direct.get(m.name) or (direct[min(like)[1]] if like else None)
    return found


def _block(name: str) -> int:
    found = _NUMBER.search(name)
    return int(found[0]) if found else -1


def _kind(name: str) -> str:
    return _NUMBER.sub("N", name, count=1)


def _factor(type_name: str) -> float:
    """By how much errors of such a type add up to more than their sum."""
    xs, ys = zip(*_MORE_THAN_SUMS, strict=True)
    return float(np.interp(bits(type_name), xs, ys))


class Choice:
    """What can be chosen, and at what cost."""

    def __init__(
        self, plan: PlannedMix, curves: Mapping[str, Mapping[str, Loss]], sensitivities: Mapping[str, float | None]
    ) -> None:
        self.plan, self.curves, self.sensitivities = plan, curves, sensitivities

    def cost(self, name: str, type_name: str) -> float:
        """Predicted KL divergence of one matrix in a type; 0 where nothing is known of it."""
        return (self.sensitivities[name] or 0.0) * self.curves[name][type_name].error * _factor(type_name)

    def predicted(self, types: Mapping[str, str]) -> float:
        """Of all together."""
        return float(sum(self.cost(m.name, types[m.name]) for m in self.plan.pool.matrices))

    @cached_property
    def best_standard(self) -> Standard | None:
        """The standard mix that is not larger and costs least."""
        fitting = [s for s in self.plan.pool.standards if s.n_bytes <= self.plan.target]
        return min(fitting, key=lambda s: (self.predicted(s.types), -s.n_bytes), default=None)

    def solved(self) -> dict[str, str]:
        """The types that cost least."""
        budget, groups = self.plan.budget, self._groups()
        for least in (_LEAST_BITS, 0.0):
            pools = [self._options(group, least) for group in groups]
            found = solve(pools, budget)
            if found is not None:
                return _types(groups, self._steady(pools, budget, found))
        found = solve([self._options(group, 0.0, guarded=False) for group in groups], budget)
        if found is None:  # sizes that are too small for matrices one by one were refused
            raise UsageError(
                f"{size(self.plan.target)} ({self.plan.target:,} bytes) is too small for --same-types",
                "Leave it out, use a larger --size, or allow smaller types with --types.",
            )
        return _types(groups, found)

    def _groups(self) -> list[list[Matrix]]:
        """Matrices that are to have one type: each by itself, unless those that runtimes fuse are to have the same."""
        found: dict[str, list[Matrix]] = {}
        for m in self.plan.pool.matrices:
            fused = _FUSED.fullmatch(m.name) if self.plan.request.same_types and not m.given else None
            key = "".join(part or "" for part in fused.groups()) if fused is not None else m.name
            group = found.setdefault(key, [])
            if group and set(group[0].types.values()) != set(m.types.values()):  # other shapes
                group = found.setdefault(m.name, [])
            group.append(m)
        return list(found.values())

    def _options(self, group: Sequence[Matrix], least: float, guarded: bool = True) -> list[Option]:
        """What matrices may become together, without what is known to do harm."""
        m = group[0]
        names = sorted({*m.types.values()}, key=lambda name: (bits(name), name))
        standard = self.best_standard
        unknown = all(self.sensitivities[m.name] is None for m in group)
        if len(group) == 1 and not m.given and unknown and guarded and standard is not None:
            return [Option(standard.types[m.name], m.n_bytes(standard.types[m.name]), 0.0)]
        if m.name in _ENDS and guarded and not m.given and self.plan.bits_per_open_weight >= _GOOD_BITS:
            least = max(least, bits(_OF_ENDS))
        allowed = [name for name in names if bits(name) >= least] or names[-1:]
        return [
            Option(name, sum(m.n_bytes(name) for m in group), sum(self.cost(m.name, name) for m in group))
            for name in allowed
        ]

    def _steady(self, pools: list[list[Option]], budget: int, found: list[Option]) -> list[Option]:
        """``found``, unless a sensitive tensor gets much less than it would for a smaller and for a larger file."""
        near = [solve(pools, int(budget * (1 + sign * _NEARBY))) for sign in (-1, 1)]
        if near[0] is None or near[1] is None:
            return found
        most = sorted(range(len(pools)), key=lambda n: (-max(o.cost for o in pools[n]), n))[:_STEADY]
        changed = list(pools)
        for n in most:
            least = min(bits(near[0][n].type), bits(near[1][n].type))
            if bits(found[n].type) <= least - _STEADY_BITS:
                changed[n] = [o for o in pools[n] if bits(o.type) >= bits(near[0][n].type)]
        return found if changed == pools else solve(changed, budget) or found


def _types(groups: Sequence[Sequence[Matrix]], found: Sequence[Option]) -> dict[str, str]:
    """The type of every matrix, from what was found for their ``groups``."""
    return {m.name: option.type for group, option in zip(groups, found, strict=True) for m in group}
