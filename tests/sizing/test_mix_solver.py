"""The types that cost least within a budget."""

from __future__ import annotations

from itertools import product

import numpy as np

from streamconv.sizing.solver import Option, frontier, solve


def _pools(seed: int) -> list[list[Option]]:
    rng = np.random.default_rng(seed)
    pools = []
    for _ in range(rng.integers(1, 6)):
        weights, sensitivity = int(rng.integers(1, 40)), float(rng.exponential())
        kinds = sorted(rng.choice([2.6, 3.4, 4.25, 4.5, 5.5, 6.6, 8.5], rng.integers(1, 5), replace=False))
        pools.append(
            [
                Option(f"T{b}", int(weights * 32 * b), sensitivity * 4.0**-b * float(rng.uniform(0.7, 1.4)))
                for b in kinds
            ]
        )
    return pools


def _best(pools: list[list[Option]], budget: int) -> float:
    fitting = [c for c in product(*pools) if sum(o.n_bytes for o in c) <= budget]
    return min((sum(o.cost for o in c) for c in fitting), default=np.inf)


def test_a_mix_is_as_good_as_the_best_one_within_one_step_of_one_tensor() -> None:
    n_exact = n = 0
    for seed in range(500):
        pools = _pools(seed)
        least, most = (sum(pick(o.n_bytes for o in p) for p in pools) for pick in (min, max))
        budget = int(least + (most - least) * np.random.default_rng(seed).uniform())
        found = solve(pools, budget)
        assert found is not None
        assert sum(o.n_bytes for o in found) <= budget
        assert all(o in pool for o, pool in zip(found, pools, strict=True))
        cost = sum(o.cost for o in found)
        step = max(max(o.n_bytes for o in p) - min(o.n_bytes for o in p) for p in pools)
        assert cost <= _best(pools, budget - step) * (1 + 1e-12)
        n_exact += cost <= _best(pools, budget) * (1 + 1e-12)
        n += 1
    assert n_exact > 0.9 * n


def test_nothing_that_is_better_still_fits() -> None:
    for seed in range(100):
        pools = _pools(seed)
        budget = int(1.3 * sum(min(o.n_bytes for o in p) for p in pools))
        found = solve(pools, budget)
        assert found is not None
        left = budget - sum(o.n_bytes for o in found)
        for now, pool in zip(found, pools, strict=True):
            assert not [o for o in pool if o.cost < now.cost and o.n_bytes - now.n_bytes <= left]


def test_there_is_no_mix_below_the_smallest_types() -> None:
    pools = [[Option("A", 10, 1.0), Option("B", 20, 0.5)], [Option("A", 10, 1.0)]]
    assert solve(pools, 19) is None
    assert solve(pools, 20) == [pools[0][0], pools[1][0]]
    assert solve(pools, 30) == [pools[0][1], pools[1][0]]
    assert solve([], 0) == []


def test_a_type_that_is_larger_and_not_better_is_left_out() -> None:
    good, large, worse = Option("Q4_K", 144, 1.0), Option("Q4_1", 160, 1.0), Option("Q5_0", 176, 1.1)
    assert frontier([large, worse, good, Option("Q8_0", 272, 0.1)]) == [good, Option("Q8_0", 272, 0.1)]


def test_a_thousand_tensors_take_a_moment_and_fill_the_budget() -> None:
    rng = np.random.default_rng(5)
    pools = []
    for _ in range(600):
        s = float(rng.exponential())
        pools.append([Option(str(b), int(1e6 * b), s * 4.0**-b) for b in (2.6, 3.4, 4.25, 4.5, 5.5, 6.6, 8.5)])
    budget = int(600 * 4.6e6)
    found = solve(pools, budget)
    assert found is not None
    assert 0.999 * budget < sum(o.n_bytes for o in found) <= budget
