"""Digests of what rows are made from, taken while the rows are made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from toy_jobs import Source, Toy

from streamconv.engine import changes
from streamconv.engine.changes import SourceDigests
from streamconv.rows import Span


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
