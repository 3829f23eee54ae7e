"""From the job folder to the final names, such that a kill at any moment leaves what the next run can finish.

    records/.NAME.streamconv   what the record of each output will be; tells a later run which files have their names already
    replaced.json              files of earlier outputs that may go: name -> size, mtime, inode
    old-N, old                 what lost its name to the output, until all is in place; where names can be exchanged, it has
                               the name of the part instead

1. Headers are written and synced, then the two records above.
2. Of shards that replace others of the same names, the first loses its name first and gets it back last, so that no mixture of
   two models ever loads. A folder changes places with the old one as a whole.
3. Every name is given to the file that this process has open, or the run ends.
4. What the output replaces is removed, by size, time and inode; a file that was added to an old folder meanwhile moves to the new.
5. The record gets its name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import xxhash

from ..errors import CannotCreate, Locked
from . import files
from .existing import Existing, is_published, walk
from .index_file import CommitRecord
from .lock import JobLock
from .manifest import tensors_of
from .plan import Chunk, Plan
from .record import FileRecord, Range, Record, begins_as_record, load, pending_path, record_of, status
from .verify import first_damage

_REPLACED = "replaced.json"


def write_records(plan: Plan, fds: Sequence[int], chunks: Sequence[Chunk], commits: Iterable[CommitRecord]) -> None:
    """Put on record, durably, what is about to get its name.

    Parameters
    ----------
    fds : the files, which begin with their headers and are synced; -1 for those that have their names from an earlier run

    Raises
    ------
    WriteFailed : it cannot be written, or what is to have its digests on record is not what was made
    """
    commits = sorted(commits, key=lambda s: s.offset)
    tensors = tensors_of(plan, fds, chunks, commits) if plan.has_manifest else {}
    ranges: dict[int, list[Range]] = {}
    for s in commits:
        source = s.source.hex() if any(s.source) else ""
        ranges.setdefault(s.file, []).append(
            Range(s.offset, s.length, s.digest.hex(), source, chunks[s.chunk].item.name)
        )
    for output, numbers in plan.outputs.items():
        listed = []
        for i in numbers:
            f, found = plan.files[i], os.fstat(fds[i]) if fds[i] >= 0 else os.stat(plan.files[i].path)
            name, header = f.path.relative_to(output.parent).as_posix(), xxhash.xxh3_128_hexdigest(f.header)
            listed.append(
                FileRecord(
                    name,
                    f.size,
                    found.st_mtime_ns,
                    found.st_ino,
                    len(f.header),
                    header,
                    tuple(ranges.get(i, ())),
                    tuple(tensors.get(i, ())),
                )  # fmt: skip
            )
        write_pending(plan.job_dir, output, Record(output.name, plan.fingerprint.hex(), list(plan.inputs), listed))


def write_pending(job_dir: Path, output: Path, record: Record) -> None:
    """Keep, durably, what the record of ``output`` will be."""
    path = pending_path(job_dir, output)
    files.make_dir(path.parent)
    files.write_atomically(path, record.text(), files.PRIVATE)


def is_placed(plan: Plan, index: int, commits: Iterable[CommitRecord]) -> bool:
    """Whether output file ``index`` got its name from a run that was killed later; those of a folder all have, or none.

    Parameters
    ----------
    commits : of this job: what was there before may have been made by the same plan, from inputs with other contents
    """
    output = next(output for output, numbers in plan.outputs.items() if index in numbers)
    numbers = range(len(plan.files)) if plan.folder is not None else [index]
    made = {(plan.files[s.file].path, s.offset, s.digest.hex()) for s in commits if s.file in numbers}
    for record in (load(pending_path(plan.job_dir, output)), record_of(output)):
        if record is None or record.fingerprint != plan.fingerprint.hex():
            continue
        listed = {path: f for path, f in record.paths(output.parent) if path in {plan.files[i].path for i in numbers}}
        on_record = {(path, r.offset, r.digest) for path, f in listed.items() for r in f.ranges}
        if on_record != made or len(listed) < len(numbers):
            continue
        # By contents where a filesystem sets times when a file is closed, by a kill too, as NTFS does.
        if all(f.is_at(path) or first_damage(path, f) is None for path, f in listed.items()):
            return True
    return False


def place(plan: Plan, fds: list[int], existing: Existing, confirm: Callable[[], None]) -> None:
    """Give every file its final name; steps 2 and 3.

    Parameters
    ----------
    fds : the files as they are open, -1 for those that have their names, as all have in the end
    existing : what may be replaced
    confirm : raises when the job is no longer ours

    Raises
    ------
    CannotCreate, WriteFailed, Locked : another process interfered; what is there under final names was not harmed
    """
    planned = {f.path for f in plan.files}
    if plan.folder is not None:
        _clear(plan.job_dir / "old")
    replaced = {
        os.path.relpath(path, plan.output.parent): _facts(there)
        for path, there in {**existing.there, **existing.ours}.items()
        if path != plan.folder and (plan.folder is not None or path not in planned)
    }
    files.write_atomically(plan.job_dir / _REPLACED, json.dumps(replaced) + "\n")
    if plan.folder is not None:
        if any(fd >= 0 for fd in fds):
            confirm()
            _give(plan, plan.staging, plan.folder, existing, plan.job_dir / "old")
            folder = plan.folder
            _check(plan, range(len(fds)), fds, lambda: _undo(plan.staging, folder, plan.job_dir / "old"))
        return
    for numbers in plan.outputs.values():
        first = numbers[0]
        if fds[first] >= 0 and any(os.path.lexists(plan.files[i].path) for i in numbers[1:]):
            confirm()
            name, aside = plan.files[first].path, plan.job_dir / f"old-{first + 1}.first"
            _take_away(name, existing, aside)
            try:
                confirm()  # the folder that it went to may be another run's by now
            except Locked:
                with suppress(CannotCreate):
                    files.publish_new(aside, name)
                raise
        for i in reversed(numbers):
            if fds[i] >= 0:
                confirm()
                part, final, aside = plan.part_path(i), plan.files[i].path, plan.job_dir / f"old-{i + 1}"
                _give(plan, part, final, existing, aside)
                _check(plan, [i], fds, lambda part=part, final=final, aside=aside: _undo(part, final, aside))  # type: ignore[misc]


def _give(plan: Plan, part: Path, final: Path, existing: Existing, aside: Path) -> None:
    expected = existing.there.get(final)
    if expected is None or status(final) is None:
        try:
            files.publish_new(part, final)
        except files.NameInTheWay:
            if all(is_published(plan, i) for i, f in enumerate(plan.files) if final in (f.path, plan.folder)):
                raise Locked(f"another process has just written {final}", "Run the same command again.") from None
            raise CannotCreate(
                f"{final} already exists and was not written by this plan: it has just appeared",
                "Check it; then choose another name, or replace it with --force.",
            ) from None
    else:
        files.publish_over(part, final, expected, aside)


def _take_away(first: Path, existing: Existing, aside: Path) -> None:
    """The name of the first shard goes before others change, as loaders begin there."""
    expected, found = existing.there.get(first), status(first)
    if found is None:
        return
    if expected is None or not os.path.samestat(found, expected):
        raise CannotCreate(
            f"{first} has just appeared and was not written by this plan", "Check it, then run the same command again."
        )
    if not _take(first, _facts(expected), aside):
        raise CannotCreate(f"{first} was just replaced or changed", "Check it, then run the same command again.")


def _take(path: Path, facts: list[int], aside: Path) -> bool:
    """Take the name of the file away if it is what ``facts`` say; looked at again under ``aside``, which nothing else uses."""
    if _facts(status(path)) != facts:
        return False
    files.publish(path, aside)
    if _facts(status(aside)) != facts:
        files.publish_new(aside, path)
        return False
    return True


def _facts(there: os.stat_result | None) -> list[int]:
    """What tells a file from another, and from itself after a write."""
    return [there.st_size, there.st_mtime_ns, there.st_ino] if there is not None else []


def _check(plan: Plan, numbers: Iterable[int], fds: list[int], undo: Callable[[], None]) -> None:
    """The file that is open must be what has the name now: where locks fail, another run may have taken its part's name."""
    for i in numbers:
        if fds[i] >= 0 and not files.is_at(fds[i], plan.files[i].path):
            undo()
            raise Locked(f"another process is working on {plan.files[i].path}", "Wait for it to finish.")
        fds[i] = -1


def _undo(part: Path, final: Path, aside: Path) -> None:
    with suppress(CannotCreate):
        files.take_back(part, final, aside)


def recover(job_dir: Path, lock: JobLock) -> bool:
    """Steps 4 and 5 for every output in the job folder whose files all have their names; whether there was one.

    Raises
    ------
    Locked : the folder is not the one that was locked any more
    CannotCreate : a file that belongs to no output lies in an old folder and its name in the new one is taken; names it
    """
    parent, recovered = job_dir.parent, False
    folder = job_dir / "records"
    for path in sorted(folder.glob(".*.streamconv")) if files.is_folder(folder) else ():
        record = load(path)
        # By contents where a folder was copied, or restored from an archive, in that state.
        if record is None or not all(f.is_at(p) or first_damage(p, f) is None for p, f in record.paths(parent)):
            continue
        new = {f.name for f in record.files}
        for name, facts in _replaced(job_dir).items():
            lock.require()
            if len(Path(name).parts) == 1 and name not in new and _take(parent / name, facts, job_dir / "old-0"):
                files.remove_file(job_dir / "old-0")
        for old in ("old", "out"):
            if files.is_folder(job_dir / old) and files.is_folder(parent / record.output):
                lock.require()
                _clear(job_dir / old)
                _rescue(job_dir / old, parent / record.output, lock)
        lock.require()
        final = parent / path.name
        if os.path.lexists(final) and not begins_as_record(final):
            raise CannotCreate(
                f"{final} has just appeared where the record of the output belongs",
                "The output is complete. Move that file elsewhere; then run the same command again.",
            )
        try:
            files.publish(path, final)
        except files.NameInTheWay:
            if os.path.lexists(path):
                raise
            # where locks do nothing, another process has just done it
        recovered = True
    return recovered


def withdraw(job_dir: Path) -> None:
    """Remove files that a run, which is given up, had given their names when it was killed before all of a set had theirs.

    Without the first of them, which comes last, they are of no use; and it could not be told later whose they are.
    """
    folder = job_dir / "records"
    for record in map(load, sorted(folder.glob(".*.streamconv")) if files.is_folder(folder) else ()):
        for path, file in record.paths(job_dir.parent) if record is not None else ():
            if path.parent == job_dir.parent and file.is_at(path):
                files.remove_file(path)


def replaced_in(folder: Path) -> set[Path]:
    """The files in ``folder``, which an old output folder became in the job folder, that are as they were when it was inspected.

    They are known by size, time and inode then, or by the record of the old output.
    """
    job_dir = folder.parent
    output = job_dir.with_suffix("")
    listed = {folder.joinpath(*Path(name).parts[1:]): facts for name, facts in _replaced(job_dir).items()}
    recorded = record.paths(output.parent) if (record := record_of(output)) is not None else ()
    known = {folder / p.relative_to(output): f for p, f in recorded if p.is_relative_to(output)}
    return {
        path for path in {*listed, *known} - {folder}
        if (there := status(path)) is not None
        and (_facts(there) == listed.get(path) or (path in known and first_damage(path, known[path]) is None))
    }  # fmt: skip


def _replaced(job_dir: Path) -> Mapping[str, list[int]]:
    data = files.read_own(job_dir / _REPLACED)
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        found = {}
    named = found if isinstance(found, dict) else {}
    return {
        name: facts for name, facts in named.items() if ".." not in Path(name).parts and not Path(name).is_absolute()
    }


def _clear(old: Path) -> None:
    """Remove the files of an old output folder, and what folders of it are empty then."""
    for path in replaced_in(old) if files.is_folder(old) else ():
        files.remove_file(path)
    for path, found in reversed(list(walk(old)) if files.is_folder(old) else []):
        if stat.S_ISDIR(found.st_mode):
            files.remove_if_empty(path)
    files.remove_if_empty(old)


def _rescue(old: Path, new: Path, lock: JobLock) -> None:
    """Move what is left in an old folder to the new one: it was added while they changed places, and is not ours to remove."""
    for path, found in reversed(list(walk(old)) if files.is_folder(old) else []):
        if stat.S_ISDIR(found.st_mode):
            files.remove_if_empty(path)
            continue
        target = new / path.relative_to(old)
        files.make_dirs(target.parent)
        lock.require()
        try:
            files.publish_new(path, target)
        except files.NameInTheWay:
            raise CannotCreate(
                f"{path} was added to {new} while that folder was being replaced, and another file has its name now",
                "Move it elsewhere; then run the same command again.",
            ) from None
    files.remove_if_empty(old)
