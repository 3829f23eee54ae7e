"""Texts in chunks, as llama.cpp's tools cut them."""

from __future__ import annotations

import numpy as np
import pytest

from streamconv.errors import BadInput
from streamconv.forward.chunks import cut


def test_chunks_do_not_overlap_and_the_tail_is_dropped() -> None:
    found = cut(range(23), 5)
    assert found.inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]
    assert found.inputs.dtype == np.int32


def test_the_first_token_of_each_chunk_is_replaced_by_the_one_that_begins_texts() -> None:
    found = cut(range(10), 5, bos=99)
    assert found.inputs.tolist() == [[99, 1, 2, 3, 4], [99, 6, 7, 8, 9]]


def test_the_second_half_of_a_chunk_predicts_the_texts_own_tokens() -> None:
    even, odd = cut(range(16), 8, bos=99), cut(range(14), 7, bos=99)
    assert (even.first_scored, even.targets.tolist()) == (4, [[5, 6, 7], [13, 14, 15]])
    assert (odd.first_scored, odd.targets.tolist()) == (3, [[4, 5, 6], [11, 12, 13]])


def test_chunks_are_left_out_at_the_beginning_and_limited() -> None:
    assert cut(range(40), 5, skip=2, limit=3).inputs[:, 0].tolist() == [10, 15, 20]
    assert len(cut(range(12), 5, limit=40).inputs) == 2


@pytest.mark.parametrize(("n", "skip"), [(9, 0), (20, 2), (19, 2), (3, 0)])
def test_a_text_of_fewer_than_two_chunks_is_refused(n: int, skip: int) -> None:
    with pytest.raises(BadInput, match=f"{n} tokens"):
        cut(range(n), 5, skip=skip)


def test_two_chunks_are_enough_and_behind_those_left_out_a_token_more() -> None:
    assert len(cut(range(10), 5).inputs) == 2
    assert len(cut(range(21), 5, skip=2).inputs) == 2
