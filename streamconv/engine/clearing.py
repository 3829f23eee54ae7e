"""What may be in a job folder, how it is emptied, and why a job should not even begin in it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import CannotCreate, StreamconvError
from . import files
from .lock import JobLock
from .plan import Plan
from .record import record_path

#: patterns in a job folder, and in folders of it; nothing else there is ours to remove
_FILES = {"": ("index.wal", "plan.json", "*.tmp", "data-*.part", "old-*", "replaced.json"), "records": ("*", ".*")}
_FOLDERS = ("records", "probe.*/full", "probe.*", "old")


def empty(folder: Path, lock: JobLock, *, also_lock: bool) -> None:
    """Remove what is in a job folder, the lock last: while it is there, nobody else begins in the same folder.

    Links to folders are not followed; they stay, and so does whatever else is no file or folder of a job.

    Parameters
    ----------
    lock : that of the folder; nothing is removed from one that came in its place
    """
    for inner, patterns in _FILES.items():
        if files.is_folder(folder / inner):
            for path in sorted({p for pattern in patterns for p in (folder / inner).glob(pattern)}):
                if lock.is_held():
                    files.remove_file(path)
    if files.is_folder(folder / "out") and lock.is_held():
        files.remove_tree(folder / "out")
    for path in [p for pattern in _FOLDERS for p in folder.glob(pattern)]:
        if files.is_folder(path.parent) and files.is_folder(path) and lock.is_held():
            files.remove_if_empty(path)
    if also_lock and lock.is_held():
        files.remove_file(folder / "lock")


def leave_nothing(folder: Path) -> None:
    """Remove a job folder that this process has locked, if nothing was ever begun in it."""
    lock = folder / "lock"
    with suppress(StreamconvError):
        if not files.listed(folder, besides=lock):
            files.remove_file(lock)
            files.remove_if_empty(folder)


def refuse_what_no_rename_reaches(plan: Plan) -> None:
    """CannotCreate where the result could not get its name in the end, before any work is done for it."""
    records = [record_path(output) for output in plan.outputs]
    for path in [*([plan.folder] if plan.folder is not None else [f.path for f in plan.files]), *records]:
        fault = files.rename_fault(plan.job_dir, path)
        if path in records and os.path.lexists(path) and not path.is_file():
            fault = fault or "something that is no file has its name"
        if fault:
            what = "its record" if path in records else "the finished output"
            raise CannotCreate(f"{path} could not be given to {what}: {fault}", "Choose another name or folder.")
