"""The tensors of an output that is about to get its name, for its record: each with its digest and with what decided its bytes.

A digest of a whole tensor cannot be put together from those of its chunks, so everything is read back; then it is also seen
whether the disk has what was committed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import xxhash

from ..errors import WriteFailed
from ..ownership import open_regular
from . import files
from .failures import guard
from .index_file import CommitRecord
from .plan import Chunk, Placement, Plan
from .record import TensorRecord

_READ_BYTES = 4 << 20


def tensors_of(
    plan: Plan, fds: Sequence[int], chunks: Sequence[Chunk], commits: Iterable[CommitRecord]
) -> Mapping[int, Sequence[TensorRecord]]:
    """The tensors of every output file by its number, in the order in which they lie; reads all of them.

    Parameters
    ----------
    fds : the files, -1 for those that have their names

    Raises
    ------
    WriteFailed : the disk does not have what was committed, or it cannot be read
    """
    made: dict[tuple[int, int], list[CommitRecord]] = defaultdict(list)
    for s in commits:
        made[chunks[s.chunk].item.number, s.file].append(s)
    found: dict[int, list[TensorRecord]] = defaultdict(list)
    for place in sorted(plan.placements, key=lambda p: (p.file, p.offset)):
        here = [s for s in made[place.item.number, place.file] if chunks[s.chunk].part == place.part]
        found[place.file].append(_tensor(plan, place, fds[place.file], here))
    return found


def _tensor(plan: Plan, place: Placement, fd: int, commits: Iterable[CommitRecord]) -> TensorRecord:
    assert plan.key_of is not None
    path = plan.part_path(place.file) if fd >= 0 else plan.files[place.file].path
    with guard(path, "cannot open"):
        own = fd if fd >= 0 else open_regular(path, os.O_RDONLY, links=1 << 30, owned=False)
    whole, length, nonfinite = xxhash.xxh3_128(), 0, 0
    try:
        for s in sorted(commits, key=lambda s: s.offset):
            one = xxhash.xxh3_128()
            for at in range(s.offset, s.offset + s.length, _READ_BYTES):
                data = files.pread_exactly(own, min(_READ_BYTES, s.offset + s.length - at), at, path)
                one.update(data)
                whole.update(data)
            if one.digest() != s.digest:
                raise WriteFailed(
                    f"{path}: bytes {s.offset:,} to {s.offset + s.length:,} are not what was written (tensor"
                    f" {place.item.name})",
                    "Check the disk; then run the same command again.",
                )
            files.drop_cache(own, s.offset, s.length)
            length += s.length
            nonfinite += s.nonfinite
    finally:
        if own != fd:
            os.close(own)
    key = plan.key_of(place.item, place.part)
    return TensorRecord(place.item.name, place.offset, length, whole.hexdigest(), nonfinite, key)
