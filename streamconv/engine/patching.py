"""Change the header of a finished file where it lies, by one write that a power cut makes whole or not at all.

Disks write sectors of 512 bytes whole, so a change within one aligned sector leaves the old file or the new one. Anything larger
could be torn, and no other program would heal that, so it is made in a new file, which gets the name in one step.

The record comes first: until the file is made again, it may have either header (``FileRecord.edited``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import xxhash

from ..errors import InputChanged, PlanDiffers, WriteFailed
from . import files
from .index_file import read_progress
from .job import leftover
from .job_files import empty, refuse_foreign_folder
from .lock import JobLock
from .plan import Plan, job_folder
from .publishing import write_pending
from .record import FileRecord, Record, load, pending_path, record_of, record_path
from .verify import first_damage

SECTOR_BYTES = 512


def changed_range(before: bytes, after: bytes) -> tuple[int, int] | None:
    """Where two headers of the same length differ, if one sector holds all of it; None where none does.

    >>> changed_range(b"abcdef", b"abXYef"), changed_range(bytes(1024), b"x" + bytes(1022) + b"x")
    ((2, 4), None)
    """
    if len(before) != len(after):
        return None
    differing = [
        at
        for at in range(0, len(before), SECTOR_BYTES)
        if before[at : at + SECTOR_BYTES] != after[at : at + SECTOR_BYTES]
    ]
    if len(differing) != 1:
        return None
    places = [
        at for at in range(differing[0], min(differing[0] + SECTOR_BYTES, len(before))) if before[at] != after[at]
    ]
    return places[0], places[-1] + 1


def announce(output: Path, record: Record, path: Path, before: bytes, after: bytes) -> bool:
    """Put on record, durably, that the header of ``path`` may be ``after`` from now on, if it is known to be ``before``.

    Parameters
    ----------
    output, record : of which ``path`` is a file

    Returns
    -------
    bool : whether it is, as far as its time tells, the file on record

    Raises
    ------
    Locked, PlanDiffers, WriteFailed
    """
    now, then = ((len(header), xxhash.xxh3_128_hexdigest(header)) for header in (before, after))

    def edited(file: FileRecord) -> FileRecord:
        forms = (form for form in file.forms if (form.header_bytes, form.header_digest) == now)
        form = next(forms, None)
        return file if form is None else replace(form, edited=then)

    with _job_folder(output) as job_dir:
        _put(job_dir, output, _changed(output, record, path, edited))
    return any(f.looks_like(p) for p, f in record.paths(output.parent) if _same(p, path))


def renew(output: Path, path: Path) -> None:
    """Remember that ``path``, whose header was changed, is still the file on record, with the time that it has now."""
    record = record_of(output)
    if record is not None:
        with _job_folder(output) as job_dir:
            _put(job_dir, output, _changed(output, record, path, lambda file: file.as_at(path)))


def forget(path: Path) -> None:
    """Remove the record that ``path`` has as an output of its own, where it is on record as a part of another one."""
    files.remove_file(record_path(path))


def patch(path: Path, before: bytes, after: bytes) -> None:
    """Change the header of ``path`` from ``before`` to ``after``, which differ within one sector.

    Raises
    ------
    InputChanged : the file does not begin with ``before`` any more
    Locked, PlanDiffers : another process, or an unfinished job, is about to write that file
    WriteFailed : the old header or the new one is there; run the same command again
    NoPermission : the file is not ours
    """
    place = changed_range(before, after)
    assert place is not None
    with _job_folder(path):
        fd = files.open_for_writing(path, create=False)
        try:
            if files.pread_exactly(fd, len(before), 0, path) != before or not files.is_at(fd, path):
                raise InputChanged(f"{path} was just changed", "Run the same command again.")
            files.pwrite_all(fd, after[slice(*place)], place[0], path)
            files.sync_data(fd, path)
            files.drop_cache(fd, 0, len(after))
            if files.pread_exactly(fd, len(after), 0, path) != after:
                raise WriteFailed(f"{path} does not contain what was written to it", "Check the disk.")
        finally:
            os.close(fd)


def settle(output: Path) -> None:
    """Complete what a killed run had all but done for ``output``, and remove what it left; an unfinished job stays.

    Where names cannot be exchanged, a file that had lost its name to a new one may have to get it back.

    Raises
    ------
    Locked, WriteFailed
    """
    job_dir = job_folder(output)
    if not files.is_folder(job_dir):
        return
    files.require_own_dir(job_dir)
    aside = job_dir / "old-1"
    if not os.path.lexists(output) and os.path.lexists(aside):
        files.publish_new(aside, output)
    index = read_progress(job_dir / "index.wal")
    if index is None:
        leftover(_plan(output))
        return
    for record in (load(pending_path(job_dir, output)), record_of(output)):
        if record is not None and record.fingerprint == index.header.fingerprint.hex() and _is_there(output, record):
            leftover(_plan(output, index.header.fingerprint))
            return


def _is_there(output: Path, record: Record) -> bool:
    """Whether the files on record have their names; by contents where a copy has other times."""
    return all(file.is_at(place) or first_damage(place, file) is None for place, file in record.paths(output.parent))


def _plan(output: Path, fingerprint: bytes = b"") -> Plan:
    """What stands for a plan where only the place of its job folder counts."""
    return Plan(output, (), (), fingerprint, (), lambda: False)


def _same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def _changed(output: Path, record: Record, path: Path, change: Callable[[FileRecord], FileRecord]) -> Record:
    """``record`` with another one of the file ``path``."""
    return replace(record, files=[change(f) if _same(p, path) else f for p, f in record.paths(output.parent)])


def _put(job_dir: Path, output: Path, record: Record) -> None:
    """Replace the record, by way of the job folder."""
    write_pending(job_dir, output, record)
    files.publish(pending_path(job_dir, output), record_path(output))


@contextmanager
def _job_folder(output: Path) -> Iterator[Path]:
    """Keep every job for the output out meanwhile; its folder goes again when all went well."""
    plan = _plan(output)
    if os.path.lexists(plan.job_dir):
        files.require_own_dir(plan.job_dir)
        if os.path.lexists(plan.job_dir / "index.wal"):
            raise PlanDiffers(
                f"{plan.job_dir} holds an unfinished job for {output}", "Finish that job first, or remove the folder."
            )
    files.own_dir(plan.job_dir)
    refuse_foreign_folder(plan.job_dir)
    lock = JobLock(plan.job_dir / "lock")
    try:
        yield plan.job_dir
        empty(plan, lock)
    finally:
        lock.close()
    files.remove_if_empty(plan.job_dir)
