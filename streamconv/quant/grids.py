"""The point grids of the IQ1, IQ2 and IQ3 types, and what a quantizer has to look up in them.

A grid is a list of points with 4 or 8 coordinates. A coordinate is a *level* 0, 1, … ``levels - 1``; what it stands for
depends on the type (2 * level + 1 while searching IQ2 and IQ3). The coordinates of any vector of levels, on the grid or
not, form its *key*, the number whose base-``levels`` digits they are, first coordinate lowest. A key splits into two
halves of equal length, ``key = low + high * half``.

Weights are rounded to levels first. When the key is not a grid point, the quantizer chooses among its *neighbours*: the
grid points at the 1, 2 or 3 smallest distances that occur, ordered by distance and then by number. That order decides
ties, so it is part of the format.

The coordinates come from the ``gguf`` package, which is imported only when a grid is first used. Tables live in memory and
take some 0.1 s to build.

Source: ggml-quants.c, ``iq2xs_init_impl`` and ``iq3xs_init_impl`` (ggml 0.25.3).
"""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Grid(NamedTuple):
    """One grid; numba kernels take it as an argument.

    Attributes
    ----------
    levels, half : int32[n_points, …] see below
    points : uint8[n_points, n_dims], level of each coordinate
    packed : int32[n_points], 2 * level + 1 of coordinate ``i`` in the bits from ``i * (24 // n_dims)`` on
    point_of : int32[n_keys], the number of the point with that key, or -1
    first : int32[n_keys + 1], neighbours of a key are ``near[first[key]:first[key + 1]]``; none for points of the grid
    near : uint16, point numbers
    near_low, near_high : uint8, the two halves of the keys of these points
    """

    points: NDArray[np.uint8]
    packed: NDArray[np.int32]
    point_of: NDArray[np.int32]
    first: NDArray[np.int32]
    near: NDArray[np.uint16]
    near_low: NDArray[np.uint8]
    near_high: NDArray[np.uint8]


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
_built: dict[str, Grid] = {}
_values: dict[str, NDArray[np.float32]] = {}
_lock = Lock()


def grid(name: str) -> Grid:
    """The tables of the grid of type ``name``; built at first use, thread-safe."""
    source, n_distances = _SOURCES[name]
    with _lock:
        if source not in _built:
            _built[source] = _build(_coordinates(source), n_distances)
        return _built[source]


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


def _build(values: NDArray[np.float32], n_distances: int) -> Grid:
    """All tables of a grid whose points decode to ``values``."""
    points = np.searchsorted(np.unique(values), values).astype(np.uint8)
    n_points, n_dims = points.shape
    n_levels = int(points.max()) + 1
    half = n_levels ** (n_dims // 2)
    keys = points.astype(np.int64) @ n_levels ** np.arange(n_dims)
    n_keys = n_levels**n_dims
    point_of = np.full(n_keys, -1, np.int32)
    point_of[keys] = np.arange(n_points)
    off = np.flatnonzero(point_of < 0)
    owner, near = _neighbours(off[:, None] // n_levels ** np.arange(n_dims) % n_levels, points, n_distances)
    counts = np.bincount(off[owner], minlength=n_keys)
    packed = (2 * points.astype(np.int64) + 1) @ (1 << 24 // n_dims * np.arange(n_dims))
    return Grid(
        points,
        packed.astype(np.int32),
        point_of,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        near.astype(np.uint16),
        (keys[near] % half).astype(np.uint8),
        (keys[near] // half).astype(np.uint8),
    )


def _neighbours(
    vectors: NDArray[np.int64], points: NDArray[np.uint8], n_distances: int
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
