"""Reads finished outputs again and compares them with their records."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.existing import walk
from ..engine.plan import job_folder
from ..engine.record import FileRecord, Record, current_record, load, record_path
from ..engine.run import Reporter
from ..engine.verify import Damage, damages, first_damage, is_edited
from ..errors import InputMissing
from ..file_names import ENDINGS, PARTS, first_parts, output_name
from ..quant.filetypes import FILE_TYPES
from .unfinished import check_name

#: endings of what a loader of the folder may take for a part of the model
_LOADED = (*ENDINGS, ".index.json")
#: folders above a file of an output in which its record may be
_DEEPEST = 4


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
    output : as ``convert`` was given it, ``{type}`` and ``{part}`` included; or one file of it

    Raises
    ------
    UsageError : no output can have this name
    InputMissing : there is no output of that name, or none with a record
    WriteFailed : it cannot be read
    """
    path = check_name(output)
    while True:
        found = records(path)
        result = _compared(found, reporter)
        if not result.damages or records(path) == found:  # else it was replaced meanwhile
            return result


def _compared(found: Mapping[Path, Record], reporter: Reporter) -> Verified:
    """``found`` are records by the paths of their outputs."""
    result = Verified()
    reporter.start(sum(f.size for r in found.values() for f in r.files), 0)
    try:
        for output, record in found.items():
            for place, file in record.paths(output.parent):
                result.damages += damages(place, file, lambda n, name=file.name: reporter.advance(n, name))  # type: ignore[misc]
                if is_edited(place, file):
                    result.notes.append(
                        f"the keys in the header of {place} were changed by streamconv edit after it was written"
                    )
                result.n_files += 1
                result.n_bytes += file.size
            for extra in _besides(output, record):
                if extra.name.endswith(_LOADED):
                    result.damages.append(Damage(extra, 0, 0, "", "is not part of the output, and loaders may read it"))
                else:
                    result.notes.append(f"{extra} is not part of the output")
    finally:
        reporter.finish()
    return result


def records(output: Path) -> dict[Path, Record]:
    """The records of an output, of all that ``{type}`` and ``{part}`` stand for, or of the output of a file, by output."""
    names = dict.fromkeys(output_name(output.name, type_, part) for type_ in FILE_TYPES for part in PARTS)
    there = [path for name in names if _is_there(path := output.with_name(name))]
    found = {path: r for path in there if (r := current_record(job_folder(output), path, _has_its_name)) is not None}
    missing = next((path for path in there if path not in found), None)
    if missing is None:
        if found:
            return found
        raise InputMissing(f"{output} does not exist", "Give the name that convert was given.")
    if not found and (owner := next(owners_of(output), None)):
        return dict([owner])
    what = f"{missing} has no record to compare with"
    if os.path.lexists(record_path(missing)):
        what = f"{record_path(missing)} is damaged, of a later version, or not yours: nothing to compare {missing} with"
    raise InputMissing(what, "streamconv check examines a GGUF file without a record.")


def _has_its_name(file: FileRecord, path: Path) -> bool:
    """Whether what a killed run was about to name ``path`` is there; by contents where its times are others, as after a restore."""
    return file.is_at(path) or first_damage(path, file) is None


def _is_there(output: Path) -> bool:
    """Whether there is an output of this name, or a record of one."""
    shards = first_parts(glob.escape(output.stem), ".gguf") if output.suffix == ".gguf" else ""
    return (
        os.path.lexists(output)
        or os.path.lexists(record_path(output))
        or bool(shards and any(output.parent.glob(shards)))
    )


def owners_of(path: Path) -> Iterator[tuple[Path, Record]]:
    """The outputs, with their records, that the file ``path`` is a part of: itself, a shard, or a file in a folder."""
    for folder in [path.parent, *Path(os.path.abspath(path)).parents[1:_DEEPEST]]:
        for name in sorted(folder.glob(".*.streamconv")):
            record = load(name)
            if record is not None and any(os.path.abspath(p) == os.path.abspath(path) for p, _ in record.paths(folder)):
                yield folder / record.output, record


def _besides(output: Path, record: Record) -> Iterator[Path]:
    """Files in an output folder that are not on record."""
    if output.is_dir() and not output.is_symlink():
        known = {path for path, _ in record.paths(output.parent)}
        for path, _ in walk(output):
            if path not in known and not any(path in k.parents for k in known):
                yield path
