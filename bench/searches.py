"""How much the searches of IQ2 and IQ3 have to look at: normally distributed weights, no importance.

    searches.py      one JSON line per type on stdout

``runs``: of successive trials of a group that round to the same levels; ``neighbours``: points of the grid that a run decides
among; ``distances``: of points per weight, as ggml computes them, for every trial off the grid, and here, for every run.
"""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np

from streamconv.quant.formats._grids import KEYS, grid_table
from streamconv.quant.formats._iq_runs import SearchSettings

TYPES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
_SUB_BLOCKS = 4000


def looked_at(name: str) -> dict[str, float]:
    """Means over groups, runs and weights."""
    plan: SearchSettings = import_module(f"streamconv.quant.formats.{name.lower()}")._PLAN
    table = grid_table(name)
    x = np.abs(np.random.default_rng(0).standard_normal((_SUB_BLOCKS, plan.n)).astype(np.float32))
    inverses = 2 * plan.levels - 1 + (np.arange(plan.trials) - plan.trials // 2) * plan.step
    scaled = x[:, None, :] * (inverses / x.max(axis=1, keepdims=True))[:, :, None]
    levels = np.clip(np.rint((scaled - 1) / 2), 0, plan.levels - 1).astype(np.int64)
    keys = levels.reshape(len(x), plan.trials, -1, plan.dims) @ plan.levels ** np.arange(plan.dims)
    starts = table[KEYS + keys]
    counts, off_grid = table[starts] >> 1, ~table[starts] & 1
    begins = np.diff(keys, axis=1, prepend=-1) != 0
    return {
        "runs": round(float(begins.sum(axis=1).mean()), 2),
        "neighbours": round(float(counts[begins].mean()), 1),
        "distances_of_ggml": round(float((counts * off_grid).sum() / x.size), 1),
        "distances": round(float(counts[begins].sum() / x.size), 1),
    }


if __name__ == "__main__":
    for name in TYPES:
        print(json.dumps({"bench": "searches", "type": name, **looked_at(name)}), flush=True)
