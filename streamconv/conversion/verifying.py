"""Reads finished outputs again and compares them with their records."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.existing import walk
from ..engine.record import Record, load, record_path
from ..engine.run import Reporter
from ..engine.verify import Damage, damages
from ..errors import InputMissing
from .unfinished import check_name


@dataclass
class Verified:
    """What was found.

    Attributes
    ----------
    n_files, n_bytes : that were read
    damages : what is not as it was made
    notes : what is there besides
    """

    n_files: int = 0
    n_bytes: int = 0
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(output: str | os.PathLike[str], reporter: Reporter) -> Verified:
    """Compare every byte of the finished ``output`` with its record.

    Parameters
    ----------
    output : as ``convert`` was given it, ``{type}`` included; or one file of it

    Raises
    ------
    UsageError : no output can have this name
    InputMissing : there is no output of that name, or none with a record
    WriteFailed : it cannot be read
    """
    path = check_name(output)
    found = list(_records(path))
    if not found:
        there = "is not there" if not os.path.lexists(path) else "has no record to compare with"
        raise InputMissing(f"{path} {there}", "streamconv check looks at a GGUF file without a record.")
    result = Verified()
    reporter.start(sum(f.size for r in found for f in r.files), 0)
    try:
        for record in found:
            for place, file in record.paths(path.parent):
                result.damages += damages(place, file, lambda n, name=file.name: reporter.advance(n, name))  # type: ignore[misc]
                result.n_files += 1
                result.n_bytes += file.size
            result.notes += _besides(path.parent, record)
    finally:
        reporter.finish()
    return result


def _records(output: Path) -> Iterator[Record]:
    """The records of an output, of all types of one with ``{type}``, or of the output that a file belongs to."""
    pattern = record_path(output).name
    names = [output.with_name(pattern)]
    if "{type}" in output.name:
        names = sorted(output.parent.glob("*".join(map(glob.escape, pattern.split("{type}")))))
    found = [record for name in names if (record := load(name)) is not None]
    if not found:  # one file of a split output
        others = (load(name) for name in sorted(output.parent.glob(".*.streamconv")))
        found = [r for r in others if r is not None and any(f.name == output.name for f in r.files)][:1]
    yield from found


def _besides(parent: Path, record: Record) -> Iterator[str]:
    """Files in an output folder that are not on record."""
    folder = parent / record.output
    if folder.is_dir() and not folder.is_symlink():
        known = {path for path, _ in record.paths(parent)}
        for path, _ in walk(folder):
            if path not in known and not any(path in k.parents for k in known):
                yield f"{path} is not part of the output"
