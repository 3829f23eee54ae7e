"""The record of a finished output: which plan made it, from which inputs, and the digest of every range of its bytes.

``.NAME.streamconv`` is a hidden JSON file beside the output NAME, never in it, so that the same plan gives the same bytes. It
tells which files may be replaced by a later run, whether inputs have changed since, and what ``verify`` compares with.
An output without a record is known by the fingerprint in its own header.

    {"format": 1, "output": NAME, "fingerprint": hex,
     "inputs": [{"name", "size", "mtime_ns", "ctime_ns", "inode", "device", "digest"}, …],
     "files":  [{"name", "size", "mtime_ns", "inode", "header": [bytes, digest],
                 "ranges": [[offset, length, digest, digest of the source's bytes, tensor], …],
                 "tensors": [[tensor, offset, length, digest, NaN and Inf in it,
                              type, digests of what decides its bytes: encoding, rows, inputs], …],
                 "edited": [bytes, digest]}, …]}
    "digest of the line above"

``tensors`` are there with ``--manifest`` only: from them, later outputs know what they need not make again. ``edited``, which most
lack, is the header that the file may have instead: another program of ours was about to change it, or has.

Digests are xxh3-128, hex; those of what decides something are SHA-256. Names of files are relative to the folder in which the
output lies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import xxhash

from ..errors import NoPermission, WriteFailed
from . import files
from .plan import Key, shortened

_MAX_BYTES = 256 << 20
_FORMAT = 1
_BEGINS = b'{"format":'
#: of a name, with room for what a temporary file beside it adds
_MAX_NAME_BYTES = 240


class Range(NamedTuple):
    """Bytes of a finished file that were made together; ``source`` is the digest of what they were made from, "" if unknown."""

    offset: int
    length: int
    digest: str
    source: str
    tensor: str


class TensorRecord(NamedTuple):
    """A tensor of a finished file; ``nonfinite`` are the NaN and Inf of its source, ``key`` is what decided its bytes."""

    name: str
    offset: int
    length: int
    digest: str
    nonfinite: int
    key: Key


@dataclass(frozen=True)
class FileRecord:
    """One file of an output.

    Attributes
    ----------
    name : relative to the folder of the output
    size, mtime_ns, inode : of the file when it was finished
    header_bytes, header_digest : what lies before all ranges; all of a file without any
    ranges : in the order of their offsets
    tensors : likewise; none where they were not asked for
    edited : bytes and digest of a header that it may have instead, which moves the ranges
    """

    name: str
    size: int
    mtime_ns: int
    inode: int
    header_bytes: int
    header_digest: str
    ranges: tuple[Range, ...]
    tensors: tuple[TensorRecord, ...] = ()
    edited: tuple[int, str] | None = None

    @property
    def forms(self) -> tuple[FileRecord, ...]:
        """What the file may be: as it was made, and with its other header."""
        if self.edited is None:
            return (self,)
        n_bytes, digest = self.edited
        moved = n_bytes - self.header_bytes
        ranges = tuple(r._replace(offset=r.offset + moved) for r in self.ranges)
        tensors = tuple(t._replace(offset=t.offset + moved) for t in self.tensors)
        other = replace(
            self, size=self.size + moved, header_bytes=n_bytes, header_digest=digest, ranges=ranges, tensors=tensors,
            edited=None,
        )  # fmt: skip
        return self, other

    def is_at(self, path: Path) -> bool:
        """Whether the very file that was finished has this name, untouched."""
        found = status(path)
        return found is not None and (found.st_size, found.st_mtime_ns, found.st_ino) == (
            self.size, self.mtime_ns, self.inode,
        )  # fmt: skip

    def looks_like(self, path: Path) -> bool:
        """Whether the file there has the size and the time of the finished one, be it a copy."""
        found = status(path)
        return found is not None and any((found.st_size, found.st_mtime_ns) == (f.size, f.mtime_ns) for f in self.forms)

    def as_at(self, path: Path) -> FileRecord:
        """The same of a copy that is at ``path``."""
        found = status(path)
        return self if found is None else replace(self, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


@dataclass(frozen=True)
class Record:
    """See the head of this module."""

    output: str
    fingerprint: str
    inputs: Sequence[dict[str, Any]]
    files: Sequence[FileRecord]

    def text(self) -> str:
        """As JSON, with what tells whether it is damaged."""
        listed = [
            {
                "name": f.name, "size": f.size, "mtime_ns": f.mtime_ns, "inode": f.inode,
                "header": [f.header_bytes, f.header_digest], "ranges": f.ranges,
                **({"tensors": [[*t[:-1], *t.key] for t in f.tensors]} if f.tensors else {}),
                **({"edited": f.edited} if f.edited else {}),
            }
            for f in self.files
        ]  # fmt: skip
        facts = {
            "format": _FORMAT, "output": self.output, "fingerprint": self.fingerprint, "inputs": list(self.inputs),
            "files": listed,
        }  # fmt: skip
        return sealed(facts)

    def paths(self, folder: Path) -> Iterator[tuple[Path, FileRecord]]:
        """Where the files are when the output lies in ``folder``."""
        return ((folder / f.name, f) for f in self.files)


def sealed(facts: Mapping[str, Any]) -> str:
    """A line of JSON, and one with its digest."""
    line = json.dumps(facts, separators=(",", ":"))
    return f'{line}\n"{xxhash.xxh3_128_hexdigest(line.encode())}"\n'


def status(path: Path) -> os.stat_result | None:
    """``lstat`` of what has this name; None when nothing has, or it may not be looked at."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def record_path(output: Path) -> Path:
    """Where the record of ``output`` is; a name too long for that is cut and told apart by its digest."""
    name = f".{output.name}.streamconv"
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = f".{shortened(output.name)}.streamconv"
    return output.with_name(name)


def pending_path(job_dir: Path, output: Path) -> Path:
    """Where the record of ``output`` is while files get their names."""
    return job_dir / "records" / record_path(output).name


def load(path: Path) -> Record | None:
    """The record in the file ``path``; None when there is none, or it is damaged, of a later format, or not ours."""
    try:
        line, _, seal = _read(path, _MAX_BYTES).rstrip(b"\n").rpartition(b"\n")
        if json.loads(seal) != xxhash.xxh3_128_hexdigest(line):
            return None
        facts = json.loads(line)
        if facts["format"] != _FORMAT:
            return None
        found = [
            FileRecord(
                _inside(f["name"], facts["output"]), int(f["size"]), int(f["mtime_ns"]), int(f["inode"]),
                int(f["header"][0]), str(f["header"][1]), tuple(_ranges(f)), tuple(_tensors(f)), _edited(f),
            )
            for f in facts["files"]
        ]  # fmt: skip
        inputs = [dict(i) for i in facts["inputs"]]
        return Record(str(facts["output"]), str(facts["fingerprint"]), inputs, found)
    except (
        OSError,
        NoPermission,
        WriteFailed,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ):
        return None


def record_of(output: Path) -> Record | None:
    """The record that lies beside ``output``; None when there is none of it."""
    found = load(record_path(output))
    return found if found is not None and found.output == output.name else None


def current_record(
    job_dir: Path, output: Path, has: Callable[[FileRecord, Path], bool] = FileRecord.is_at
) -> Record | None:
    """The record of what has the names of ``output`` now: of a run that was killed when all files had theirs, or the last one.

    ``has`` tells whether a file that was about to get a name has it now.
    """
    pending, final = load(pending_path(job_dir, output)), load(record_path(output))
    if (
        pending is not None
        and pending.output == output.name
        and all(has(f, p) for p, f in pending.paths(output.parent))
    ):
        return pending
    return final if final is not None and final.output == output.name else None


def begins_as_record(path: Path) -> bool:
    """Whether the file at ``path`` is ours and begins as a record does, be it damaged or of a later format."""
    try:
        return _read(path, len(_BEGINS)) == _BEGINS
    except (OSError, NoPermission, WriteFailed):
        return False


def _read(path: Path, limit: int) -> bytes:
    """The first bytes of a file of ours; backups may be further names of it, as it is only ever replaced."""
    fd = files.open_own(path, os.O_RDONLY, links=1 << 30)
    try:
        return files.pread_exactly(fd, limit, 0, path)
    finally:
        os.close(fd)


def _inside(name: str, output: str) -> str:
    """``name`` if it is that of a file in the output's place or in the output's folder; files are removed by it."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or "/" in output or parts[0] == "/" or (len(parts) > 1 and parts[0] != output):
        raise ValueError(name)
    if "\0" in name or not os.fsencode(name):
        raise ValueError(name)
    return name


def _edited(f: Any) -> tuple[int, str] | None:
    """The other header of one file on record."""
    if f.get("edited") is None:
        return None
    n_bytes, digest = int(f["edited"][0]), str(f["edited"][1])
    if not 0 <= n_bytes < 1 << 63:
        raise ValueError(n_bytes)
    return n_bytes, digest


def _ranges(f: Any) -> Iterator[Range]:
    """The ranges of one file on record, if they lie behind each other and in the file; readers go through all of it."""
    end = int(f["header"][0])
    for offset, length, digest, source, tensor in f["ranges"]:
        found = Range(int(offset), int(length), str(digest), str(source), str(tensor))
        if found.length < 0 or not 0 <= end <= found.offset <= int(f["size"]) - found.length:
            raise ValueError(found)
        end = found.offset + found.length
        yield found
    if not 0 <= end <= int(f["size"]) < 1 << 63:
        raise ValueError(end)


def _tensors(f: Any) -> Iterator[TensorRecord]:
    """The tensors of one file on record, if they lie behind each other and in the file."""
    end = int(f["header"][0])
    for name, offset, length, digest, nonfinite, *key in f.get("tensors", ()):
        found = TensorRecord(str(name), int(offset), int(length), str(digest), int(nonfinite), Key(*map(str, key)))
        if not 0 <= end <= found.offset <= int(f["size"]) - found.length or found.length <= 0:
            raise ValueError(found)
        end = found.offset + found.length
        yield found
