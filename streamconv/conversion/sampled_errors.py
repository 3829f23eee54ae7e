"""How far a finished output is from its source: rows here and there are decoded from the file and compared with the source's.

It takes the same few rows of every tensor, whatever earlier runs made, so that it costs little beside the conversion of a large
model, and a small model is looked at in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine import files
from ..engine.plan import Placement
from ..quant.encode import EncodedRows, Encoding
from ..rows import Bytes, Floats
from .prepared import Prepared

#: weights of a tensor that are looked at, in so many ranges of rows
SAMPLE_WEIGHTS, _RANGES = 1 << 18, 16

Doubles = NDArray[np.float64]


class SampledError(NamedTuple):
    """The error of one tensor in one output.

    Attributes
    ----------
    relative : ‖decoded − source‖ / ‖source‖ over the sample; None where the source is all zeros and the output is not
    weighted : the same with the squares of every column times its importance; None without an importance matrix
    """

    relative: float | None
    weighted: float | None


def sampled_errors(prepared: Prepared) -> Mapping[tuple[int, int], SampledError]:
    """The errors of all tensors of a finished output, by number of the item and part.

    Raises
    ------
    StreamconvError : a file cannot be read, or an input has changed since
    """
    places: dict[int, list[Placement]] = {}
    for place in prepared.plan.placements:
        places.setdefault(place.item.number, []).append(place)
    found: dict[tuple[int, int], SampledError] = {}
    for item in prepared.items:
        for place in list(places.get(item.number, ())):
            if item.parts[place.part].copies:  # the same bytes
                weighted = 0.0 if item.parts[place.part].has_weights else None
                found[item.number, place.part] = SampledError(0.0, weighted)
                places[item.number].remove(place)
        if places.get(item.number):
            found |= _errors(item, places[item.number], prepared)
    prepared.plan.verify_inputs()
    return found


def sampled_rows(n_rows: int, n_cols: int) -> list[range]:
    """Which rows are looked at: all of them, or ranges of equal length at equal distances.

    >>> sampled_rows(8, 100), [(r.start, len(r)) for r in sampled_rows(32000, 4096)][:3]
    ([range(0, 8)], [(998, 4), (2998, 4), (4998, 4)])
    """
    n = max(1, SAMPLE_WEIGHTS // max(n_cols, 1))
    if n >= n_rows:
        return [range(n_rows)]
    n_ranges = min(_RANGES, n)
    length, stride = n // n_ranges, n_rows / n_ranges
    starts = (int(stride * (k + 0.5)) - length // 2 for k in range(n_ranges))
    return [range(start, start + length) for start in starts]


def _errors(item: EncodedRows, places: list[Placement], prepared: Prepared) -> dict[tuple[int, int], SampledError]:
    sums = {place.part: _Sums() for place in places}
    for rows in sampled_rows(item.n_rows, item.n_cols):
        source = item.rows.read(rows.start, rows.stop)
        for place in places:
            encoding = item.parts[place.part]
            written = _written(prepared.plan.files[place.file].path, place, encoding, rows)
            decoded = np.empty_like(source)
            encoding.decode(written, decoded)
            for part, importance in _of_slices(encoding, rows):
                here = slice(part.start - rows.start, part.stop - rows.start)
                sums[place.part].add(source[here], decoded[here], importance)
        item.rows.release(rows.start, rows.stop)
    for look in item.looks:  # what was found of whole tensors takes memory
        look.measured(None)
    return {(item.number, part): found.error(item.parts[part].has_weights) for part, found in sums.items()}


def _written(path: Path, place: Placement, encoding: Encoding, rows: range) -> Bytes:
    """Rows of a finished output, uint8[n_rows, row_bytes]."""
    with open(path, "rb") as file:
        at = place.offset + rows.start * encoding.row_bytes
        data = files.pread_exactly(file.fileno(), len(rows) * encoding.row_bytes, at, path)
    return np.frombuffer(data, np.uint8).reshape(len(rows), encoding.row_bytes)


def _of_slices(encoding: Encoding, rows: range) -> Iterator[tuple[range, Floats | None]]:
    """``rows`` by the slices (experts) that they belong to, with the importance of the columns of each."""
    start = rows.start
    while start < rows.stop:
        stop = min(rows.stop, start - start % encoding.slice_rows + encoding.slice_rows)
        yield range(start, stop), encoding.importance(start)
        start = stop


class _Sums:
    """Squares of errors and of values, with and without importance."""

    def __init__(self) -> None:
        self._plain, self._weighted = np.zeros(2), np.zeros(2)

    def add(self, source: Floats, decoded: Floats, importance: Floats | None) -> None:
        """Take rows in; NaN and Inf count for nothing, nor do numbers that became such."""
        with np.errstate(invalid="ignore", over="ignore"):
            x = source.astype(np.float64)
            e = decoded.astype(np.float64) - x
        known = np.isfinite(x) & np.isfinite(e)
        x, e = np.where(known, x, 0.0), np.where(known, e, 0.0)
        columns = np.stack([(e * e).sum(axis=0), (x * x).sum(axis=0)])
        self._plain += columns.sum(axis=1)
        if importance is not None:
            self._weighted += (columns * importance.astype(np.float64)).sum(axis=1)

    def error(self, is_weighted: bool) -> SampledError:
        """The errors so far."""
        return SampledError(_relative(self._plain), _relative(self._weighted) if is_weighted else None)


def _relative(sums: Doubles) -> float | None:
    error, values = map(float, sums)
    if not values:
        return None if error else 0.0
    return math.sqrt(error / values)
