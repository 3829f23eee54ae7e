"""Digests of what rows are made from, taken while the rows are made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import xxhash
from toy_jobs import Source, Toy

from streamconv.engine import changes, plan
from streamconv.engine.changes import SourceDigests
from streamconv.rows import Bytes, Span


class Scattered(Toy):
    """Row r is made from bytes 3r to 3r + 3 of the source, and before them from byte 0, which all rows need."""

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        assert self.source is not None
        for row in range(start, stop):
            yield Span(self.source, 0, 1)
            yield Span(self.source, 3 * row, 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_digest_taken_while_rows_are_made_is_that_of_all_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    content = rng.randbytes(300)
    (tmp_path / "in.bin").write_bytes(content)
    monkeypatch.setattr(changes, "_READ_BYTES", rng.choice([1, 2, 4, 4 << 20]))
    rows = Scattered("a", 100)
    rows.source = Source(tmp_path / "in.bin")
    start, stop = sorted(rng.sample(range(101), 2))
    digest = SourceDigests().alongside(rows, start, stop)
    for share in sorted(rng.random() for _ in range(rng.randrange(5))):
        digest.advance(share)
    wanted = b"".join(content[:1] + content[3 * row : 3 * row + 3] for row in range(start, stop))
    assert digest.complete() == SourceDigests().of(rows, start, stop) == xxhash.xxh3_128_digest(wanted)


class Columns(Toy):
    """Rows of matrices of 10 bytes, 5 rows of each: any row needs all of its matrix."""

    together = 5

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        assert self.source is not None
        first, last = start // 5, -(-stop // 5)
        if stop > start:
            yield Span(self.source, 10 * first, 10 * (last - first))


def test_what_rows_of_a_matrix_have_in_common_is_read_once(tmp_path: Path) -> None:
    content = bytes(range(40))
    (tmp_path / "in.bin").write_bytes(content)
    rows = Columns("a", 20)
    rows.source = Source(tmp_path / "in.bin")
    read: list[tuple[int, int]] = []
    view = rows.source.view

    def counted(offset: int, length: int) -> Bytes:
        read.append((offset, length))
        return view(offset, length)

    rows.source.view = counted  # type: ignore[method-assign]
    digests = SourceDigests()
    for start, stop in ((0, 2), (2, 5), (5, 7), (7, 10), (3, 8)):
        first, last = start // 5, -(-stop // 5)
        wanted = xxhash.xxh3_128_digest(content[10 * first : 10 * last])
        assert digests.of(rows, start, stop) == digests.alongside(rows, start, stop).complete() == wanted
    assert read == [(0, 10), (10, 10), (0, 20), (0, 20)]


@pytest.mark.parametrize("together", [1, 3, 4, 7, 12])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 100])
def test_no_chunk_has_a_part_of_one_group_of_rows_and_of_another(together: int, most: int) -> None:
    cuts = plan._cuts(3 * together, most, together)
    assert cuts[0] == 0
    assert cuts[-1] == 3 * together
    for start, stop in pairwise(cuts):
        assert 0 < stop - start <= most
        assert start // together == (stop - 1) // together or start % together == stop % together == 0
