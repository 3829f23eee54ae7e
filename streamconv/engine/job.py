"""The job folder: what a run finds there, what it may trust, and how the result gets its final name.

OUT.streamconv/     0700, beside OUT, gone when OUT is complete; not used if it is not ours alone
    lock            advisory lock and its holder
    plan.json       the plan for people, and the identity of the inputs
    index.wal       the write-ahead index
    data-N.part     output file number N, bytes at their final offsets; starts with "SCVP" until the header is written
    out/            instead of these, when OUT is a folder: its files by their names
    and while names are given, what ``publishing`` keeps there
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CannotCreate, InputChanged, Locked, NoPermission, PlanDiffers, StreamconvError, WriteFailed
from . import attaching, files, publishing
from .budget import RESERVE_BYTES
from .changes import Made, changed_sources
from .existing import Existing, look
from .index_file import CLEAN, PUBLISHING, CommitRecord, read_progress
from .job_files import (
    SHARED,
    empty,
    is_foreign,
    leave_nothing,
    open_part,
    refuse_foreign_folder,
    refuse_foreign_parts,
    refuse_links,
    refuse_what_no_rename_reaches,
    write_plan,
)
from .journal import Journal
from .lock import JobLock
from .plan import Chunk, Plan
from .record import Record
from .unfinished import refuse_another, unfinished
from .verify import digest_of

#: seconds to wait, about, before the folder is looked at again in which another process was met
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def preflight(plan: Plan) -> None:
    """Check that the output can be created at all, before anything is written.

    Raises
    ------
    CannotCreate : the folder is missing, or the output could never get its name
    NoPermission : it is not writable
    WriteFailed : the disk is too small
    """
    parent = plan.output.parent
    if not parent.is_dir():
        raise CannotCreate(f"{parent} is not a folder", f"Create it first: mkdir -p {parent}")
    whole = plan.total_bytes + plan.scratch_bytes
    have = sum(files.allocated_bytes(path) for path in plan.job_dir.glob("data-*.part"))
    have += sum(files.allocated_bytes(plan.part_path(i)) for i in range(len(plan.files)) if plan.folder is not None)
    need = whole - have + RESERVE_BYTES
    free = files.free_bytes(parent)
    if need > free and whole > have:
        raise WriteFailed(
            f"{parent}: {need:,} bytes are needed ({need - RESERVE_BYTES:,} for the output, {RESERVE_BYTES:,} in reserve),"
            f" {free:,} are free",
            "Free some space, or choose a smaller --type or another folder.",
        )


@dataclass
class Job:
    """An open job folder, locked by this process.

    What is in ``done`` was on the disk and had its digest when the folder was opened (with ``verify="none"``: when it was
    committed). That the folder was removed, or the job taken over where locks do nothing, is noticed before the next commit and
    before the output gets its name, not sooner.

    Attributes
    ----------
    done : commits of the chunks that are finished and trusted
    notes : what was unusual about the folder's state
    force, update : which of what is in the output's place may lose its name to it; see ``existing``
    """

    plan: Plan
    lock: JobLock
    journal: Journal
    part_fds: list[int]
    done: dict[int, CommitRecord]
    notes: list[str]
    force: bool
    update: bool
    _opened: ExitStack
    _discarded: bool = False

    @classmethod
    def open(
        cls,
        plan: Plan,
        *,
        force: bool = False,
        update: bool = False,
        discard: bool = False,
        verify: str = "all",
        progress: Callable[[int, int], None] | None = None,
    ) -> Job:
        """Create the job folder of ``plan`` or take over the unfinished one.

        Parameters
        ----------
        force, update : discard an unfinished job of another plan, and what was made of inputs that were changed since
        discard : discard any unfinished job
        verify : which finished chunks to read back before they are trusted: ``all``, ``recent`` (those since the last
            orderly stop) or ``none``
        progress : told of bytes that were read back, and of how many there are to be in all

        Raises
        ------
        Locked, PlanDiffers, InputChanged, CannotCreate, WriteFailed
        NoPermission : the folder, or a file in it, is not ours alone
        """
        if os.path.lexists(plan.job_dir):
            files.require_own_dir(plan.job_dir)
        if not (force or update or discard):
            refuse_another(plan)  # as below, but before the lock is written
        files.own_dir(plan.job_dir)
        for wait_s in _PAUSES[:5]:  # where locks do nothing, another process may be removing its own
            if not is_foreign(plan.job_dir):
                break
            time.sleep(wait_s)
        refuse_foreign_folder(plan.job_dir)
        refuse_links(plan.job_dir)
        opened = ExitStack()  # the job's, once there is one
        try:
            lock = JobLock(plan.job_dir / "lock")
            opened.callback(lock.close)
            try:
                refuse_what_no_rename_reaches(plan)
            except files.NameInTheWay as e:  # the folder has gone, as where locks do nothing
                raise Locked(f"another process is working on this output: {e.message}", "Wait for it to finish.") from e
            except StreamconvError:
                leave_nothing(plan.job_dir)
                raise
            pauses = iter(_PAUSES)
            while True:
                try:
                    return cls._enter(plan, lock, opened, force, update, discard, verify, progress)
                except files.NameInTheWay as e:  # where locks do nothing, others may be setting up the same folder
                    pause = next(pauses, None)
                    if pause is None:
                        raise Locked(
                            f"another process is working on this output: {e.message}", "Wait for it to finish."
                        ) from e
                    time.sleep(pause * random.uniform(0.5, 1.5))
        except BaseException:
            opened.close()
            raise

    @classmethod
    def _enter(
        cls,
        plan: Plan,
        lock: JobLock,
        opened: ExitStack,
        force: bool,
        update: bool,
        discard: bool,
        verify: str,
        progress: Callable[[int, int], None] | None,
    ) -> Job:
        """Set up the locked job folder, or take over what is there; whatever that opens joins what is ``opened``."""
        stack = opened.enter_context(ExitStack())
        try:
            notes: list[str] = []
            publishing.recover(plan.job_dir, lock)  # an earlier run may have been killed just before the end
            journal = unfinished(plan, force or update or discard, notes)
            if journal is not None and discard:
                journal.close()
                journal = None
            fresh = journal is None
            refuse_foreign_parts(plan)
            if journal is None:
                publishing.withdraw(plan.job_dir)
                empty(plan, lock, but_the_lock=True)
                write_plan(plan)
            else:
                stack.callback(journal.close)
            # Only a job that had begun to publish may find its own files under their final names.
            placed = set[int]()
            if journal is not None and journal.header.state == PUBLISHING:
                commits = list(journal.commits())
                placed = {i for i in range(len(plan.files)) if publishing.is_placed(plan, i, commits)}
            parts = [-1 if i in placed else open_part(plan, i, stack, notes) for i in range(len(plan.files))]
            chunks = plan.chunks()
            if journal is None:
                journal = Journal.create(plan.job_dir / "index.wal", len(chunks), plan.fingerprint, plan.inputs_digest)
                stack.callback(journal.close)
            elif not (plan.job_dir / "plan.json").exists():
                write_plan(plan)
            job = cls(plan, lock, journal, parts, {}, notes, force, update, opened)
            if not fresh:
                # Where names were being given, a part's may have been exchanged for that of an older output.
                doubt = bool(notes) or journal.header.state == PUBLISHING
                job._trust(chunks, "all" if doubt else verify, progress)
                if journal.header.inputs not in (plan.inputs_digest, bytes(16)):
                    if not job._compare_inputs(chunks):
                        stack.close()
                        job = cls._enter(plan, lock, opened, force, update, True, verify, progress)
                        job.notes[:0] = notes
                        return job
                    write_plan(plan)
            journal.take_over(plan.inputs_digest)
            return job
        except BaseException:
            stack.close()
            raise

    def confirm(self) -> None:
        """Make sure that what is written goes to the files that the next run will find.

        Locks do not tell: they may be no-ops on network filesystems, and go with a folder that is removed.

        Raises
        ------
        Locked : another run has taken the job over, or started it over under the same name
        """
        parts = [(fd, self.plan.part_path(i)) for i, fd in enumerate(self.part_fds) if fd >= 0]
        if not self.journal.still_ours() or not all(files.is_at(fd, path) for fd, path in parts):
            raise Locked(f"another process has taken over {self.plan.job_dir}", "Wait for it to finish.")

    @property
    def is_shared(self) -> bool:
        """Whether other processes fill the part files, or have done so and may still be about to."""
        return (self.plan.job_dir / SHARED).exists()

    def share(self) -> attaching.Token:
        """Let other processes fill the part files; what tells them that they work for this run."""
        files.write_atomically(self.plan.job_dir / SHARED, "", files.PRIVATE)
        header = self.journal.header
        return attaching.Token(header.salt, header.nonce, header.fingerprint)

    def commit(self, group: list[CommitRecord], *, is_durable: bool = False) -> None:
        """Record chunks as finished whose bytes have been written: first these become durable, then their slots."""
        for i in sorted({s.file for s in group} if not is_durable else ()):
            files.sync_data(self.part_fds[i], self.plan.part_path(i))
        self.plan.verify_inputs()
        self.confirm()
        self.journal.commit(group)
        for s in group:
            files.drop_cache(self.part_fds[s.file], s.offset, s.length)

    def rest(self) -> None:
        """Record that the job stopped cleanly, if it is still ours."""
        if self.journal.still_ours():
            self.journal.mark(CLEAN)

    def _trust(self, chunks: list[Chunk], verify: str, progress: Callable[[int, int], None] | None) -> None:
        """Fill ``done`` with the commits that hold, and make the others pending."""
        torn = self.journal.damaged_slots()
        if torn:
            self.notes.append(f"{torn} index slots were damaged; their chunks are computed again")
        commits = {s.chunk: s for s in self.journal.commits()}
        clean = self.journal.header.clean_generation
        mismatched, refused = [], []
        if (
            verify == "recent" and self.is_shared
        ):  # what workers made is read back when all is made, and a stop comes before
            verify = "all"
        unread = {n for n, s in commits.items() if verify == "none" or (verify == "recent" and s.generation <= clean)}
        total = sum(s.length for n, s in commits.items() if n not in unread)
        for number, commit in commits.items():
            chunk = chunks[number] if number < len(chunks) else None
            fits = chunk is not None and (commit.file, commit.rows) == (chunk.file, chunk.stop - chunk.start)
            if chunk is not None and not self.plan.files[chunk.file].grows:
                fits = fits and (commit.offset, commit.length) == (chunk.offset, chunk.length)
            published = fits and self.part_fds[commit.file] < 0  # checked whole before it got its name
            if fits and commit.nonfinite and not self.plan.admits_nonfinite and not published:
                refused.append(number)
            elif fits and (number in unread or published or self._digest(commit) == commit.digest):
                self.done[number] = commit
            else:
                mismatched.append(number)
            if progress and number not in unread:
                progress(commit.length, total)
        if mismatched:
            names = sorted({chunks[n].item.name for n in mismatched if n < len(chunks)})
            self.notes.append(
                f"{len(mismatched)} finished chunks do not match the index and are computed again"
                f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            )
        if refused:
            self.notes.append(
                f"{len(refused)} finished chunks contain NaN or Inf, which were allowed then; they are computed again"
            )
        if mismatched or refused:
            self.journal.forget([*mismatched, *refused])

    def _digest(self, commit: CommitRecord) -> bytes:
        """Digest of the range as it is on disk now."""
        fd, path = self.part_fds[commit.file], self.plan.part_path(commit.file)
        files.drop_cache(fd, commit.offset, commit.length)
        digest = digest_of(fd, commit.offset, commit.length, path)
        files.drop_cache(fd, commit.offset, commit.length)
        return digest

    def _compare_inputs(self, chunks: list[Chunk]) -> bool:
        """Inputs were moved, copied, touched or written since the job was planned: their contents decide what is kept.

        False where all is to be made again, for a file that has its final name already was made from other contents.

        Raises
        ------
        InputChanged : some are others, and the run is not to start over with them
        """
        made = {n: Made(s.digest, s.source) for n, s in self.done.items()}
        changed = [c.number for c in changed_sources(chunks, made)]
        if not changed:
            self.notes.append("inputs have different times or locations than before, but the same contents")
            return True
        first = chunks[min(changed)]
        if not (self.force or self.update):
            where = next((str(file.path) for file, _, _ in first.item.spans(first.start, first.stop)), "an input")
            raise InputChanged(
                f"{where} was changed after the unfinished job {self.plan.job_dir} was planned (tensor {first.item.name})",
                "Restore the old file to resume, or use --update to compute again what was made from it.",
            )
        if any(self.part_fds[chunks[n].file] < 0 for n in changed):
            self.notes.append("inputs were changed while the output was being renamed; all of it is computed again")
            return False
        if self.is_shared:  # who still writes there has the old inputs; new files are out of reach
            self.notes.append("inputs were changed since workers began to make the output; all of it is computed again")
            return False
        lost = sum(self.done.pop(n).length for n in changed)
        self.journal.forget(changed)
        self.notes.append(
            f"inputs were changed since the unfinished job was planned: {lost:,} bytes are computed again"
            f" ({first.item.name}{', …' if len(changed) > 1 else ''}), the rest is unchanged"
        )
        return True

    def publish(self) -> None:
        """Write the headers, check what is on disk, and give every file its final name; the first file comes last.

        A folder gets its name as a whole. See ``publishing``.

        Raises
        ------
        WriteFailed, CannotCreate, Locked, InputChanged
        """
        existing = Existing() if all(fd < 0 for fd in self.part_fds) else look(self.plan)
        existing.refuse(force=self.force, update=self.update)  # it may have appeared since the run began, hours ago
        if existing.complete and existing.there and not self.force:  # by a run that the lock should have kept out
            self.discard()
            raise Locked(f"another process has just written {self.plan.output}", "Run the same command again.")
        refuse_foreign_parts(self.plan)
        for index, f in enumerate(self.plan.files):
            fd, path = self.part_fds[index], self.plan.part_path(index)
            if fd < 0:
                continue  # has its name from an earlier run that was killed between two renames
            if self.is_shared:
                attaching.fill(path, f.header)
            else:
                files.pwrite_all(fd, f.header, 0, path)
            files.sync_data(fd, path)
            files.drop_cache(fd)
            if os.fstat(fd).st_size != f.size or files.pread_exactly(fd, len(f.header), 0, path) != f.header:
                raise WriteFailed(
                    f"{path} does not contain what was written to it",
                    "Check the disk; then run the same command again.",
                )
            if f.accept is not None:
                f.accept(path)
        self.confirm()  # syncs take long
        publishing.write_records(self.plan, self.part_fds, self.plan.chunks(), self.journal.commits())
        # Not before: without these records, those of an older output of the same plan would be taken for them.
        self.journal.mark(PUBLISHING)
        publishing.place(self.plan, self.part_fds, existing, self.confirm)
        with suppress(Locked):  # all names are given
            publishing.recover(self.plan.job_dir, self.lock)
        self.discard()

    def check_contents(self) -> None:
        """Make sure that the inputs still have the contents that everything was made from; reads them.

        Raises
        ------
        InputChanged : they have not
        """
        made = {s.chunk: Made(s.digest, s.source) for s in self.journal.commits()}
        changed = changed_sources(self.plan.chunks(), made)
        if changed:
            raise InputChanged(f"the input of tensor {changed[0].item.name} changed while it was being read")

    def discard(self) -> None:
        """Remove what is in the job folder, if it is still that of this run; ``close`` removes the folder."""
        with suppress(files.NameInTheWay):  # where locks do nothing, others may be setting up the folder again
            empty(self.plan, self.lock)
        self._discarded = True

    def abandon(self) -> None:
        """Leave everything open and locked until the process ends: threads that do not end may write to these files."""
        self._opened.pop_all()

    def close(self) -> None:
        """Release everything; the job stays as it is."""
        self._opened.close()
        if self._discarded:  # not before: on NFS, files that are open keep a folder from being removed
            files.remove_if_empty(self.plan.job_dir)


def leftover(plan: Plan) -> None:
    """Remove the folder of a job whose output was published just before the process died; that of another plan or user stays."""
    if plan.job_dir.is_dir():
        _settle(plan, {})


def renew(plan: Plan, existing: Existing) -> None:
    """Remember that inputs and files of the finished output have the same contents under new times.

    By way of the job folder, as the temporary file of a killed process beside the output could not be recognized.
    """
    if existing.renewed:
        files.own_dir(plan.job_dir)
        _settle(plan, existing.renewed)


def _settle(plan: Plan, records: Mapping[Path, Record]) -> None:
    """Give ``records``, by output, and those that a killed process left, their names; then the job folder goes."""
    try:
        files.require_own_dir(plan.job_dir)
        found = read_progress(plan.job_dir / "index.wal")
    except (PlanDiffers, NoPermission):
        return
    if is_foreign(plan.job_dir) or (found is not None and found.header.fingerprint != plan.fingerprint):
        return
    lock = JobLock(plan.job_dir / "lock")
    try:
        for output, record in records.items():
            publishing.write_pending(plan.job_dir, output, record)
        publishing.recover(plan.job_dir, lock)
        empty(plan, lock)
    finally:
        lock.close()
    files.remove_if_empty(plan.job_dir)
