"""The file of a packed checkpoint, ``NAME.scpack``: frames of Zstandard, in its seekable format.

    head         skippable frame 0x184D2A50: JSON, what file this is of
    frames       ordinary frames, each with a checksum: the content in its order, at most 4 MiB a frame
    facts        skippable frame 0x184D2A51: JSON, the digest of the content and which frames are planes; then a seal
    seek table   skippable frame 0x184D2A5E: how long every frame is, packed and unpacked, those of head and facts too

What a frame decompresses to is the content, or the same numbers of two bytes as planes (``kernels/planes.py``). The seal is the
XXH3-64 of head, facts and the entries of the table, so what frames are taken for cannot be damaged unseen either.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from ..errors import BadInput
from .hostile_json import MAX_JSON_BYTES, NotJson, parse_json
from .mapped import MappedFile
from .zstd_frames import Frames

VERSION = 1
#: bytes of content that a frame has at most
FRAME_BYTES = 4 << 20
#: key of the head that names the job which made the file
_JOB = "streamconv.job"
_FORMAT = "scpack"
_HEAD, _FACTS, _TABLE, _TABLE_END = 0x184D2A50, 0x184D2A51, 0x184D2A5E, 0x8F92EAB1
_SKIPPABLE = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_SEAL_BYTES = 8


@dataclass(frozen=True)
class Facts:
    """What a packed file says of its content.

    Attributes
    ----------
    name, size, sha256 : of the plain file; the digest in hexadecimal
    data_start, sample : what ``MappedFile.describe(data_start)`` gives as the digest of the plain file
    planes : frames that hold planes, as ranges of numbers; number 0 is the head
    """

    name: str
    size: int
    sha256: str
    data_start: int
    sample: str
    planes: Sequence[tuple[int, int]]


def head(name: str, size: int, job: str) -> bytes:
    """The first bytes of the packed form of a file, which name the job that made it."""
    return _skippable(_HEAD, _json({"format": _FORMAT, "version": VERSION, "name": name, "size": size, _JOB: job}))


def tail(head: bytes, facts: Facts, frames: Sequence[tuple[int, int]]) -> bytes:
    """What follows the frames.

    Parameters
    ----------
    frames : of each, in their order, its bytes and those of its content
    """
    text = _json(
        {
            "sha256": facts.sha256, "data_start": facts.data_start, "sample": facts.sample,
            "planes": [list(run) for run in facts.planes],
        }
    )  # fmt: skip
    length = _SKIPPABLE.size + len(text) + _SEAL_BYTES
    entries = np.array([(len(head), 0), *frames, (length, 0)], "<u4").tobytes()
    sealed = _skippable(_FACTS, text + _seal(head, text, entries))
    table = entries + _FOOTER.pack(len(frames) + 2, 0, _TABLE_END)
    return sealed + _skippable(_TABLE, table)


def read_facts(file: MappedFile, frames: Frames) -> Facts:
    """What ``file`` says of its content, checked against the places of its frames.

    Errors: BadInput names the file and what is wrong with it.
    """
    last = len(frames.sizes) - 1
    if last < 1 or frames.sizes_are_stated:
        raise _damaged(file, "it has no seek table; is it truncated?")
    at = frames.packed_at
    if max(at[1] - at[0], at[last + 1] - at[last]) > MAX_JSON_BYTES:
        raise _damaged(file, "what it says of itself is too long")
    first, end = (bytes(file.view(int(at[n]), int(at[n + 1] - at[n]))) for n in (0, last))
    entries = np.stack([np.diff(at), frames.sizes], axis=1).astype("<u4").tobytes()
    own, text, seal = first[8:], end[8:-_SEAL_BYTES], end[-_SEAL_BYTES:]
    if first[:8] != _SKIPPABLE.pack(_HEAD, len(own)) or end[:8] != _SKIPPABLE.pack(_FACTS, len(end) - 8):
        raise _damaged(file, "it does not begin and end as a packed file does")
    if seal != _seal(first, text, entries):
        raise _damaged(file, "head, facts or seek table are not what they were")
    try:
        said, facts = parse_json(own), parse_json(text)
        if said["format"] != _FORMAT or said["version"] != VERSION:
            raise BadInput(
                f"{file.path}: version {said['version']!r} of {said['format']!r} is not read, only {VERSION} of {_FORMAT!r}",
                "Unpack it with the streamconv that packed it.",
            )
        found = Facts(
            str(said["name"]), int(said["size"]), str(facts["sha256"]), int(facts["data_start"]), str(facts["sample"]),
            [(int(a), int(b)) for a, b in facts["planes"]],
        )  # fmt: skip
    except (NotJson, KeyError, TypeError, ValueError, OverflowError):
        raise _damaged(file, "what it says of itself is not understood") from None
    _check(file, frames, found)
    return found


def _check(file: MappedFile, frames: Frames, facts: Facts) -> None:
    sizes = frames.sizes
    before = 1
    for start, stop in facts.planes:
        if not before <= start < stop < len(sizes) or (sizes[start:stop] % 2).any():
            raise _damaged(file, f"frames {start}..{stop} cannot be planes")
        before = stop
    if facts.size != frames.content_at[-1] or sizes[0] or sizes[-1] or sizes.max() > FRAME_BYTES:
        raise _damaged(file, f"its frames do not hold the {facts.size} bytes that it states, at most 4 MiB each")


def _damaged(file: MappedFile, why: str) -> BadInput:
    return BadInput(f"{file.path} is damaged: {why}", "Pack the file again, or fetch this one again.")


def _seal(head: bytes, text: bytes, entries: bytes) -> bytes:
    return xxhash.xxh3_64_digest(head + text + entries)


def _skippable(magic: int, content: bytes) -> bytes:
    return _SKIPPABLE.pack(magic, len(content)) + content


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()
