"""The job folder: what a run finds there, what it may trust, and how the result gets its final name.

OUT.streamconv/     0700, beside OUT, gone when OUT is complete
    lock            advisory lock and its holder
    plan.json       the plan for people, and the identity of the inputs
    index.wal       the write-ahead index
    data-N.part     output file number N, bytes at their final offsets; starts with "SCVP" until the header is written
    out/            instead of these, when OUT is a folder: its files by their names
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

from ..errors import CannotCreate, InputChanged, Locked, PlanDiffers, WriteFailed, raise_exhausted
from . import files
from .journal import CLEAN, PUBLISHED, PUBLISHING, Journal, Stamp, read_progress
from .lock import JobLock
from .plan import Chunk, Plan

#: room that must stay on the disk beyond the output: for the index, logs and whatever else writes there meanwhile
_RESERVE_BYTES = 64 << 20
_PART_MAGIC = b"SCVP"
_READ_BYTES = 4 << 20
#: seconds to wait, about, before the folder is looked at again in which another process was met
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)


def is_published(plan: Plan, index: int) -> bool:
    """Whether output file ``index`` of ``plan`` is complete under its final name.

    The header holds the plan's fingerprint, so equal header bytes and length mean: made by this very plan.
    """
    f = plan.files[index]
    try:
        with open(f.path, "rb", buffering=0) as got:
            header = files.pread_exactly(got.fileno(), len(f.header), 0, f.path)
            return header == f.header and os.fstat(got.fileno()).st_size == f.size
    except (OSError, WriteFailed) as e:
        raise_exhausted(e)
        return False


def is_finished(plan: Plan) -> bool:
    """Whether the whole output is there, made by this plan from inputs that have not been touched since."""
    if not all(is_published(plan, i) for i in range(len(plan.files))):
        return False
    oldest = min(f.path.stat().st_mtime_ns for f in plan.files)
    return all(i["mtime_ns"] <= oldest for i in plan.inputs)


def refuse_foreign_output(plan: Plan) -> None:
    """Raise CannotCreate when something this plan did not make is in the output's place."""
    if plan.folder is not None:
        if plan.folder.exists() and not (plan.folder.is_dir() and not any(plan.folder.iterdir())):
            raise CannotCreate(
                f"{plan.folder} is already there and was not made by this plan",
                "Choose another name, or replace it with --force.",
            )
        return
    for index, f in enumerate(plan.files):
        if f.path.exists() and not is_published(plan, index):
            what = "is a folder" if f.path.is_dir() else "is already there and was not made by this plan"
            raise CannotCreate(f"{f.path} {what}", "Choose another name, or replace it with --force.")


def preflight(plan: Plan) -> None:
    """Check that the output can be created at all, before anything is written.

    Raises
    ------
    CannotCreate : the folder is missing
    NoPermission : it is not writable
    WriteFailed : the disk is too small
    """
    parent = plan.output.parent
    if not parent.is_dir():
        raise CannotCreate(f"{parent} is not a folder", f"Create it first: mkdir -p {parent}")
    have = sum(files.allocated_bytes(plan.part_path(i)) for i in range(len(plan.files)))
    need = plan.total_bytes - have + _RESERVE_BYTES
    free = files.free_bytes(parent)
    if need > free and plan.total_bytes > have:
        raise WriteFailed(
            f"{parent}: {need:,} bytes are needed ({need - _RESERVE_BYTES:,} for the output, {_RESERVE_BYTES:,} to spare),"
            f" {free:,} are free",
            "Free some space, or choose a smaller --type or another folder.",
        )


@dataclass
class Job:
    """An open job folder, locked by this process.

    What is in ``done`` was on the disk and had its digest when the folder was opened (with ``verify="none"``: when it was
    stamped). Whoever removes the folder, or takes the job over where locks do nothing, is noticed before the next commit and
    before the output gets its name, not sooner.

    Attributes
    ----------
    done : stamps of the chunks that are finished and trusted
    notes : what was unusual about the folder's state
    replaces : whether something that this plan did not make may lose its name to the output
    """

    plan: Plan
    journal: Journal
    part_fds: list[int]
    done: dict[int, Stamp]
    notes: list[str]
    replaces: bool
    _resources: ExitStack
    _discarded: bool = False

    @classmethod
    def open(
        cls,
        plan: Plan,
        *,
        force: bool = False,
        anew: bool = False,
        verify: str = "all",
        progress: Callable[[int], None] | None = None,
    ) -> Job:
        """Create the job folder of ``plan`` or take over the unfinished one.

        Parameters
        ----------
        force : discard an unfinished job of another plan, or of inputs that were changed since
        anew : discard any unfinished job
        verify : which finished chunks to read back before they are trusted: ``all``, ``recent`` (those since the last
            orderly stop) or ``none``
        progress : called with the bytes read back so far

        Raises
        ------
        Locked, PlanDiffers, InputChanged, CannotCreate, WriteFailed, NoPermission
        """
        if not (force or anew):
            read_progress(plan.job_dir / "index.wal")  # raises what would be raised below, before the lock is written
        with ExitStack() as stack:
            files.make_dir(plan.job_dir)
            lock = JobLock(plan.job_dir / "lock")
            stack.callback(lock.close)
            for pause in [*_PAUSES, None]:
                try:
                    job = cls._enter(plan, force, anew, verify, progress)
                    break
                except files.NameInTheWay as e:  # where locks do nothing, others may be setting up the same folder
                    if pause is None:
                        raise Locked(f"another process is at work: {e.message}", "Let that one finish.") from e
                    time.sleep(pause * random.uniform(0.5, 1.5))
            stack.callback(job._resources.close)
            job._resources = stack.pop_all()
            return job

    @classmethod
    def _enter(cls, plan: Plan, force: bool, anew: bool, verify: str, progress: Callable[[int], None] | None) -> Job:
        """Set up the locked job folder, or take over what is there."""
        with ExitStack() as stack:
            notes: list[str] = []
            journal = _unfinished(plan, force or anew, notes)
            if journal is not None and anew:
                journal.close()
                journal = None
            fresh = journal is None
            if journal is None:
                for path in [plan.job_dir / "index.wal", *plan.job_dir.glob("data-*.part")]:
                    files.remove_file(path)
                if plan.staging.exists():
                    files.remove_tree(plan.staging)
                _write_plan(plan)
            else:
                stack.callback(journal.close)
            # Only a job that had begun to publish may find its own files under their final names.
            publishing = journal is not None and journal.header.state == PUBLISHING and _may_be_published(plan)
            parts = [_open_part(plan, i, publishing, stack, notes) for i in range(len(plan.files))]
            chunks = plan.chunks()
            if journal is None:
                journal = Journal.create(plan.job_dir / "index.wal", len(chunks), plan.fingerprint, plan.inputs_digest)
                stack.callback(journal.close)
            elif not (plan.job_dir / "plan.json").exists():
                _write_plan(plan)
            job = cls(plan, journal, parts, {}, notes, force, stack)
            if not fresh:
                job._trust(chunks, verify if not notes else "all", progress)
            journal.take_over()
            job._resources = stack.pop_all()
            return job

    def confirm(self) -> None:
        """Make sure that what is written goes to the files that the next run will find.

        Locks do not tell: they may be no-ops on network filesystems, and go with a folder that somebody removes.

        Raises
        ------
        Locked : another run has taken the job over, or begun it anew under the same name
        """
        parts = [(fd, self.plan.part_path(i)) for i, fd in enumerate(self.part_fds) if fd >= 0]
        if not self.journal.still_ours() or not all(files.is_at(fd, path) for fd, path in parts):
            raise Locked(f"another process has taken over {self.plan.job_dir}", "Let that one finish.")

    def rest(self) -> None:
        """Record that the job stopped in order, if it is still ours."""
        if self.journal.still_ours():
            self.journal.mark(CLEAN)

    def _trust(self, chunks: list[Chunk], verify: str, progress: Callable[[int], None] | None) -> None:
        """Fill ``done`` with the stamps that hold, and make the others pending."""
        torn = self.journal.damaged_slots()
        if torn:
            self.notes.append(f"{torn} index slots were damaged; their chunks are made again")
        stamps = {s.chunk: s for s in self.journal.stamps()}
        clean = self.journal.header.clean_generation
        doubted, refused, read = [], [], 0
        for number, stamp in stamps.items():
            chunk = chunks[number] if number < len(chunks) else None
            fits = chunk is not None and (stamp.file, stamp.offset, stamp.length, stamp.rows) == (
                chunk.file, chunk.offset, chunk.length, chunk.stop - chunk.start,
            )  # fmt: skip
            unread = verify == "none" or (verify == "recent" and stamp.generation <= clean)
            published = fits and self.part_fds[stamp.file] < 0  # checked whole before it got its name
            if fits and stamp.nonfinite and not self.plan.admits_nonfinite and not published:
                refused.append(number)
            elif fits and (unread or published or self._digest(stamp) == stamp.digest):
                self.done[number] = stamp
            else:
                doubted.append(number)
            read += stamp.length
            if progress:
                progress(read)
        if doubted:
            names = sorted({chunks[n].item.name for n in doubted if n < len(chunks)})
            self.notes.append(
                f"{len(doubted)} finished chunks do not hold what the index says and are made again"
                f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            )
        if refused:
            self.notes.append(
                f"{len(refused)} finished chunks hold NaN or Inf, which were allowed then; they are made again"
            )
        if doubted or refused:
            self.journal.forget([*doubted, *refused])

    def _digest(self, stamp: Stamp) -> bytes:
        """Digest of the range as it is on disk now."""
        fd, path = self.part_fds[stamp.file], self.plan.part_path(stamp.file)
        files.drop_cache(fd, stamp.offset, stamp.length)
        digest = xxhash.xxh3_128()
        for at in range(stamp.offset, stamp.offset + stamp.length, _READ_BYTES):
            size = min(_READ_BYTES, stamp.offset + stamp.length - at)
            digest.update(files.pread_exactly(fd, size, at, path))
        files.drop_cache(fd, stamp.offset, stamp.length)
        return digest.digest()

    def publish(self) -> None:
        """Write the headers, check what is on disk, and give every file its final name; the first file comes last.

        A folder gets its name as a whole.

        Raises
        ------
        WriteFailed, CannotCreate
        """
        moved = self.plan.folder is not None and not self.plan.staging.exists()  # by an earlier run, just before a kill
        if not self.replaces and not moved:
            refuse_foreign_output(self.plan)  # it may have come since the run began, hours ago
        self.journal.mark(PUBLISHING)
        for index, f in enumerate(self.plan.files):
            fd, path = self.part_fds[index], self.plan.part_path(index)
            if fd < 0:
                continue  # published by an earlier run that was killed between two renames
            files.pwrite_all(fd, f.header, 0, path)
            files.sync_data(fd, path)
            files.drop_cache(fd)
            if os.fstat(fd).st_size != f.size or files.pread_exactly(fd, len(f.header), 0, path) != f.header:
                raise WriteFailed(f"{path} does not hold what was written to it", "Check the disk; then run again.")
        if not moved:
            self.confirm()  # names are about to be given: they must be to these files
        if self.plan.folder is not None:
            self._publish_folder(self.plan.folder)
        else:
            for index in reversed(range(len(self.plan.files))):
                if self.part_fds[index] >= 0:
                    files.publish(self.plan.part_path(index), self.plan.files[index].path)
        self.journal.mark(PUBLISHED)
        self.discard()

    def _publish_folder(self, folder: Path) -> None:
        if not self.plan.staging.exists():
            return  # an earlier run was killed just after it
        if folder.exists():  # to be replaced; an empty one could stay, but not on every system
            old = self.plan.job_dir / "old"
            if old.exists():
                files.remove_tree(old)
            files.publish(folder, old)
        files.publish(self.plan.staging, folder)

    def discard(self) -> None:
        """Remove what is in the job folder; ``close`` removes the folder."""
        with suppress(files.NameInTheWay):  # where locks do nothing, others may be setting up the folder again
            _empty(self.plan.job_dir)
        self._discarded = True

    def abandon(self) -> None:
        """Leave everything open and locked until the process ends: threads that do not end may write to these files."""
        self._resources.pop_all()

    def close(self) -> None:
        """Release everything; the job stays as it is."""
        self._resources.close()
        if self._discarded:  # not before: on NFS, files that are open keep a folder from being removed
            files.remove_if_empty(self.plan.job_dir)


def leftover(plan: Plan) -> None:
    """Remove the folder of a job whose output was published just before the process died; that of another plan stays."""
    try:
        found = read_progress(plan.job_dir / "index.wal")
    except PlanDiffers:
        return
    if not plan.job_dir.is_dir() or (found is not None and found[0].fingerprint != plan.fingerprint):
        return
    lock = JobLock(plan.job_dir / "lock")
    try:
        _empty(plan.job_dir)
    finally:
        lock.close()
    files.remove_if_empty(plan.job_dir)


def _empty(folder: Path) -> None:
    """Remove what is in a job folder, the lock at last: while it is there, nobody else begins in the same folder."""
    lock = folder / "lock"
    for path in [*files.listed(folder, besides=lock), lock]:
        if path.is_dir() and not path.is_symlink():
            files.remove_tree(path)
        else:
            files.remove_file(path)


def _unfinished(plan: Plan, force: bool, notes: list[str]) -> Journal | None:
    """The index of an unfinished job that ``plan`` may go on with; None when there is none, or none that can be trusted.

    Raises
    ------
    PlanDiffers, InputChanged : it belongs to another plan or to other inputs, and not ``force``
    """
    path, journal = plan.job_dir / "index.wal", None
    try:
        journal = Journal.open(path)
        if journal is None:
            if path.exists() and not force:
                notes.append("the unfinished job's index was unusable; starting over")
            return None
        # The fingerprint knows a sample of each input only: where one was written, equal ones do not make the chunks ours.
        if journal.header.inputs != plan.inputs_digest:
            _refuse_changed_inputs(plan)
        if journal.header.fingerprint != plan.fingerprint:
            raise PlanDiffers(
                f"{plan.job_dir} holds an unfinished job that was planned differently{_difference(plan)}",
                "Repeat that command to finish it, or start over with --force.",
            )
        if journal.header.inputs in (plan.inputs_digest, bytes(16)):
            return journal
        notes.append("an input was written since the unfinished job was planned; starting over")
    except (PlanDiffers, InputChanged):
        if not force:
            if journal is not None:
                journal.close()
            raise
    if journal is not None:
        journal.close()
    return None


def _may_be_published(plan: Plan) -> bool:
    """Whether files may have their final names already: those of a folder all have them, or none."""
    return plan.folder is None or all(is_published(plan, i) for i in range(len(plan.files)))


def _open_part(plan: Plan, index: int, publishing: bool, stack: ExitStack, notes: list[str]) -> int:
    """The part file ``index``, of full length; -1 when its file is published already."""
    path, size = plan.part_path(index), plan.files[index].size
    if publishing and not path.exists() and is_published(plan, index):
        return -1
    fresh = not path.exists()
    if fresh and plan.folder is not None:
        for folder in reversed([p for p in path.parents if p.is_relative_to(plan.staging)]):
            files.make_dir(folder, mode=0o777)
    fd = files.open_for_writing(path, create=fresh)
    stack.callback(os.close, fd)
    if not fresh and os.fstat(fd).st_size != size:
        notes.append(f"{path.name} had the wrong length; every finished chunk is read back")
    if fresh and (plan.job_dir / "index.wal").exists():
        notes.append(f"{path.name} was gone; its chunks are made again")
    if fresh or os.fstat(fd).st_size != size:
        files.allocate(fd, size, path)
        files.pwrite_all(fd, _PART_MAGIC[:size], 0, path)
        files.sync_data(fd, path)
        files.sync_dir(path.parent)
    return fd


def _write_plan(plan: Plan) -> None:
    record = {**plan.description, "fingerprint": plan.fingerprint.hex(), "inputs": list(plan.inputs)}
    files.write_atomically(plan.job_dir / "plan.json", json.dumps(record, indent=1, sort_keys=True) + "\n")


def _recorded(plan: Plan) -> dict[str, object]:
    try:
        record = json.loads((plan.job_dir / "plan.json").read_text())
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}  # derived data: a damaged plan.json costs only the comparison


def _difference(plan: Plan) -> str:
    """In words, what an unfinished job has that ``plan`` has not."""
    old = _recorded(plan)
    differing = [k for k in sorted(plan.description) if k in old and old[k] != plan.description[k]]
    return "".join(f"; {k}: {old[k]} there, {plan.description[k]} now" for k in differing[:3])


def _refuse_changed_inputs(plan: Plan) -> None:
    """Raise InputChanged, and name the file, when an input was written since the job was planned, as far as plan.json tells."""
    old = {}
    recorded = _recorded(plan).get("inputs")
    for entry in recorded if isinstance(recorded, list) else []:
        if isinstance(entry, dict):
            old[entry.get("name")] = entry
    for now in plan.inputs:
        before = old.get(now["name"])
        if before is None or before.get("size") != now["size"]:
            continue  # another input altogether: the fingerprints differ
        if before.get("mtime_ns") != now["mtime_ns"]:
            raise InputChanged(
                f"{now['name']} was changed after the unfinished job {plan.job_dir} was planned",
                "Put the old file back to go on, or start over with --force.",
            )
