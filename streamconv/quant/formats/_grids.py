"""The point grids of the IQ1, IQ2 and IQ3 types, and what a quantizer has to look up in them.

A grid is a list of points with 4 or 8 coordinates. A coordinate is a *level* 0, 1, … ``levels - 1``; what it stands for
depends on the type (2 * level + 1 while searching IQ2 and IQ3). The coordinates of any vector of levels, on the grid or
not, form its *key*, the number whose base-``levels`` digits they are, first coordinate lowest.

Weights are rounded to levels first. When the key is not a grid point, the quantizer chooses among its *neighbours*: the
grid points at the 1, 2 or 3 smallest distances that occur, ordered by distance and then by number. That order decides
ties, so it is part of the format.

Kernels get all of it as one flat int32 array, a *table* (numba counts references to arrays that it takes out of a tuple, even
in innermost loops):

* ``table[point]``: the levels of a point; 2 * level + 1 of coordinate ``i`` in the bits from ``i * (24 // n_dims)`` on;
* ``table[KEYS + key]``: where the list of neighbours of that key is;
* such a list: twice their number, then an *entry* for each: the point in bits 0-15 and four nibbles from there on, the keys of its
  *quarters*, which are 2 of 8 coordinates with 3 levels or 1 of 4 with 8. The list of a key on the grid has that point alone
  and an odd first number. 16 entries can be read from any place of a list.

The coordinates come from the ``gguf`` package, which is imported only when a grid is first used. Tables live in memory and
take some 0.1 s to build.

Source: ggml-quants.c, ``iq2xs_init_impl`` and ``iq3xs_init_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.int32]

#: room for the points at the start of a table
KEYS = 2048
#: what may be read past the end of the last list
_PADDING = 16

#: type -> (class of gguf.quants that holds the coordinates, how many distinct distances count as near)
_SOURCES = {
    "IQ2_XXS": ("IQ2_XXS", 2),
    "IQ2_XS": ("IQ2_XS", 2),
    "IQ2_S": ("IQ2_S", 1),
    "IQ1_S": ("IQ1_S", 3),
    "IQ1_M": ("IQ1_S", 3),
    "IQ3_XXS": ("IQ3_XXS", 2),
    "IQ3_S": ("IQ3_S", 3),
}
_tables: dict[str, Table] = {}
_values: dict[str, NDArray[np.float32]] = {}
_lock = Lock()


def grid_table(name: str) -> Table:
    """The table of the grid of type ``name``; built at first use, thread-safe."""
    source, n_distances = _SOURCES[name]
    with _lock:
        if source not in _tables:
            _tables[source] = _build(_coordinates(source), n_distances)
        return _tables[source]


def grid_values(name: str) -> NDArray[np.float32]:
    """The values that type ``name`` decodes to before scaling: float32[n_points, n_dims]; thread-safe."""
    source, _ = _SOURCES[name]
    with _lock:
        return _coordinates(source)


def _coordinates(source: str) -> NDArray[np.float32]:
    if source not in _values:
        from gguf import quants

        reference: Any = getattr(quants, source)
        reference.init_grid()
        n_dims = reference.grid_shape[1]
        _values[source] = np.ascontiguousarray(reference.grid, np.float32).reshape(-1, n_dims)
    return _values[source]


def _build(values: NDArray[np.float32], n_distances: int) -> Table:
    """The table of a grid whose points decode to ``values``."""
    points = np.searchsorted(np.unique(values), values)
    n_points, n_dims = points.shape
    n_levels = int(points.max()) + 1
    place = n_levels ** np.arange(n_dims)
    off = np.setdiff1d(np.arange(n_levels**n_dims), points @ place)
    owner, near = _neighbours(off[:, None] // place % n_levels, points, n_distances)
    # a point on the grid is its own and only neighbour
    on = points @ place
    owner, near = np.concatenate([off[owner], on]), np.concatenate([near, np.arange(n_points)])
    order = np.argsort(owner, kind="stable")
    owner, near = owner[order], near[order]
    counts = np.bincount(owner)
    # a list takes its entries and one number more
    starts = KEYS + len(counts) + np.cumsum(counts + 1) - counts - 1
    quarters = points.reshape(n_points, 4, n_dims // 4) @ place[: n_dims // 4]
    entries = np.arange(n_points) | quarters @ (1 << np.array([16, 20, 24, 28]))
    table = np.zeros(starts[-1] + counts[-1] + 1 + _PADDING, np.int64)
    table[:n_points] = (2 * points + 1) @ (1 << 24 // n_dims * np.arange(n_dims))
    table[KEYS : KEYS + len(counts)] = starts
    table[starts] = 2 * counts
    table[starts[on]] += 1
    table[KEYS + len(counts) + np.arange(len(near)) + owner + 1] = entries[near]
    return table.astype(np.uint32).view(np.int32)


def _neighbours(
    vectors: NDArray[np.int64], points: NDArray[np.int64], n_distances: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (row of ``vectors``, point near it), by row, then distance, then point."""
    rows, found = [], []
    p = points.astype(np.float32)
    step = 512  # bounds the memory of the distance matrix
    for start in range(0, len(vectors), step):
        v = vectors[start : start + step].astype(np.float32)
        # squared distances are small integers, exact in float32
        distance = (v * v).sum(1)[:, None] - 2 * (v @ p.T) + (p * p).sum(1)
        limit = distance.min(1)
        for _ in range(n_distances - 1):
            limit = np.where(distance > limit[:, None], distance, np.float32(np.inf)).min(1)
        row, point = np.nonzero(distance <= limit[:, None])
        order = np.lexsort((point, distance[row, point], row))
        rows.append(start + row[order])
        found.append(point[order])
    return np.concatenate(rows), np.concatenate(found)
