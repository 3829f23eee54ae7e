"""Which files in a job folder are the job's own: only those are ever used or removed.

A user may have a folder of that name, or put something into one of ours. What is not recognised here stays, and where it would
become a part of the output, or lose its place to it, the job is refused.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ..errors import CannotCreate, NoPermission, StreamconvError
from ..ownership import folder_fault, not_ours
from . import files, publishing
from .existing import walk
from .index_file import begins_as_index
from .lock import LOCK_BYTES, JobLock
from .plan import Plan
from .record import record_path

#: what a part begins with until its header is written
PART_MAGIC = b"SCVP"
#: is there once other processes may have part files open
SHARED = "shared"
_TEMPORARY = r"(\.[0-9a-f]{8,16}\.tmp)?"
_OWN = re.compile(rf"(index\.wal|plan\.json|replaced\.json|{SHARED}){_TEMPORARY}|data-\d+\.part|old-\d+(\.first)?")
_OWN_RECORD = re.compile(rf"\..*\.streamconv{_TEMPORARY}", re.DOTALL)
_OWN_FOLDERS = ("out", "old", "records", "probe.*/full", "probe.*")
_LOCK_BEGINS = b'{"pid"'
_MOVE_IT = "Move it somewhere else, or choose another name for the output; it is never removed."


def recorded_plan(job_dir: Path) -> dict[str, Any]:
    """What ``plan.json`` of a job folder says; {} where there is none or it is damaged, as nothing rests on it."""
    try:
        found = json.loads(files.read_own(job_dir / "plan.json") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_plan(plan: Plan) -> None:
    """Write ``plan.json``."""
    record = {**plan.description, "fingerprint": plan.fingerprint.hex(), "inputs": list(plan.inputs)}
    if plan.folder is not None:
        record["parts"] = [f.path.relative_to(plan.folder).as_posix() for f in plan.files]
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    files.write_atomically(plan.job_dir / "plan.json", text, files.PRIVATE)


def difference(plan: Plan) -> str:
    """In words, what an unfinished job has that ``plan`` has not."""
    old = recorded_plan(plan.job_dir)
    differing = [k for k in sorted(plan.description) if k in old and old[k] != plan.description[k]]
    return "".join(f"; {k}: {old[k]} there, {plan.description[k]} now" for k in differing[:3])


def is_foreign(folder: Path) -> bool:
    """Whether the job folder's place is taken by one that no job made: it is not empty, and has neither our lock nor our index.

    The lock comes first and goes last, durably.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    if not names or ("index.wal" in names and begins_as_index(folder / "index.wal")):
        return False
    holder = files.read_own(folder / "lock", 1 << 12)
    if holder is None:  # gone just now, or not ours alone, as taking it will report
        return "lock" not in names
    if (
        names == ["lock"] and len(holder) == LOCK_BYTES
    ):  # after a power cut anything may be in it: it was not synced yet
        return False
    return bool(holder.strip(b"\0")) and not holder.startswith(_LOCK_BEGINS)


def refuse_foreign_folder(folder: Path) -> None:
    """CannotCreate where ``is_foreign``."""
    if is_foreign(folder):
        raise CannotCreate(f"{folder} exists, and is not a job folder", _MOVE_IT)


def refuse_links(job_dir: Path) -> None:
    """NoPermission where a link, or a file, has the name of a folder that the job will use in the end."""
    for name in ("records", "out", "old"):
        path = job_dir / name
        if os.path.lexists(path) and not files.is_folder(path):
            raise not_ours(path, folder_fault(path))


def refuse_foreign_parts(plan: Plan) -> None:
    """CannotCreate where something that no job made lies among the parts of an output folder, and would get into it."""
    for path, is_own in _staged(plan).items():
        if not is_own:
            raise CannotCreate(f"{path} is in the folder of an unfinished job, but no job wrote it", _MOVE_IT)


def refuse_what_no_rename_reaches(plan: Plan) -> None:
    """CannotCreate where the output or its record could not get its name in the end, before any work is done for it."""
    finals = [plan.folder] if plan.folder is not None else [f.path for f in plan.files]
    for path in [*finals, *map(record_path, plan.outputs)]:
        fault = files.rename_fault(plan.job_dir, path)
        if fault:
            what = "the finished output" if path in finals else "its record"
            raise CannotCreate(f"{path} cannot become the name of {what}: {fault}", "Choose another name or folder.")


def leave_nothing(folder: Path) -> None:
    """Remove a job folder that this process has locked, if nothing was ever begun in it."""
    lock = folder / "lock"
    with suppress(StreamconvError):
        if not files.listed(folder, besides=lock):
            files.remove_file(lock)
            files.remove_if_empty(folder)


def empty(plan: Plan, lock: JobLock, *, but_the_lock: bool = False) -> None:
    """Remove what is the job's own in its folder, the lock last: while it exists, no other process starts in the same folder.

    Parameters
    ----------
    lock : of the folder; nothing is removed from another folder that took its place
    """
    folder = plan.job_dir
    staged = [path for path, is_own in _staged(plan).items() if is_own]
    for path in [*_matching(folder, _OWN), *_matching(folder / "records", _OWN_RECORD), *reversed(staged)]:
        if lock.is_held():
            files.remove_if_empty(path) if path.is_dir() else files.remove_file(path)
    for path in [p for pattern in _OWN_FOLDERS for p in folder.glob(pattern)]:
        if files.is_folder(path) and files.is_folder(path.parent) and lock.is_held():
            files.remove_if_empty(path)
    if not but_the_lock and lock.is_held():
        files.sync_dir(folder)
        if lock.is_held():
            files.remove_file(folder / "lock")


def _matching(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """Regular files in ``folder`` of such names."""
    found = files.listed(folder, folder) if files.is_folder(folder) else []
    return sorted(p for p in found if names.fullmatch(p.name) and _is_regular(p))


def _staged(plan: Plan) -> dict[Path, bool]:
    """What lies where the parts of an output folder are, and whether it belongs to this plan or the one on record.

    The files of the old output lie in ``old``, or still in ``out`` after a kill while the folders changed places.
    """
    if plan.folder is None:
        return {}
    staging, old = plan.job_dir / "out", plan.job_dir / "old"
    names = recorded_plan(plan.job_dir).get("parts")
    own = {staging / name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    own |= {plan.part_path(i) for i in range(len(plan.files))}
    own |= publishing.replaced_in(staging) | publishing.replaced_in(old)
    folders = {parent for path in own for parent in path.parents}
    return {
        path: path in folders if stat.S_ISDIR(found.st_mode) else _is_regular(path) and (path in own or _is_part(path))
        for place in (old, staging) if files.is_folder(place)
        for path, found in walk(place)
    }  # fmt: skip


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_part(path: Path) -> bool:
    """Whether the file begins as a part whose header is not written yet."""
    with suppress(OSError, NoPermission):
        fd = files.open_own(path, os.O_RDONLY)
        try:
            found = os.pread(fd, len(PART_MAGIC), 0)
            return found != b"" and PART_MAGIC.startswith(found)
        finally:
            os.close(fd)
    return False


def open_part(plan: Plan, index: int, stack: ExitStack, notes: list[str]) -> int:
    """The part file ``index``, of full length unless it grows."""
    path, grows = plan.part_path(index), plan.files[index].grows
    size = len(plan.files[index].header) if grows else plan.files[index].size
    fresh = not os.path.lexists(path)
    if plan.folder is not None:
        for folder in reversed([p for p in path.parents if p.is_relative_to(plan.staging)]):
            files.make_dir(folder, mode=0o777)  # also says when it is a link to elsewhere
    fd = files.open_for_writing(path, create=fresh, mode=plan.files[index].mode)
    stack.callback(os.close, fd)
    if not fresh and not grows and os.fstat(fd).st_size != size:
        notes.append(f"{path.name} had the wrong length; every finished chunk is read back")
    if fresh and (plan.job_dir / "index.wal").exists():
        notes.append(f"{path.name} was missing; its chunks are computed again")
    if fresh or (not grows and os.fstat(fd).st_size != size):
        files.allocate(fd, size, path)
        files.pwrite_all(fd, PART_MAGIC[:size], 0, path)
        files.sync_data(fd, path)
        files.sync_dir(path.parent)
    return fd
