"""A norm over batches is folded as it computes when training is over."""

from __future__ import annotations

import numpy as np
import pytest

from streamconv.kit import Averaged, Constant, FoldedNorm


def vectors(*values: list[float]) -> list[Constant]:
    return [Constant(np.array(each, np.float32)) for each in values]


def test_scale_and_offset_give_what_the_norm_gives() -> None:
    parts = vectors([2.0, -1.0], [0.5, 0.25], [3.0, -4.0], [1.0, 0.25])
    scale, offset = (FoldedNorm(parts, is_offset).read(0, 1)[0] for is_offset in (False, True))
    x = np.array([5.0, 7.0], np.float32)
    weight, bias, mean, variance = (part.read(0, 1)[0] for part in parts)
    wanted = (x - mean) / np.sqrt(variance + 1e-5) * weight + bias
    assert np.allclose(x * scale + offset, wanted, rtol=1e-6)


def test_parts_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"parts have shapes \[\[2\], \[2\], \[1\], \[2\]\]"):
        FoldedNorm(vectors([1.0, 1.0], [1.0, 1.0], [1.0], [1.0, 1.0]), is_offset=False)


def test_counts_below_the_least_count_as_that() -> None:
    sums, counts = (
        Constant(np.array([[4.0, 2.0], [1.0, 3.0]], np.float32)),
        Constant(np.array([[2.0], [0.0]], np.float32)),
    )
    assert Averaged(sums, counts, 0.5).read(0, 2).tolist() == [[2.0, 1.0], [2.0, 6.0]]
