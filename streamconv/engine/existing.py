"""What is in the place of an output already: whose it is, whether it is the result itself, and whether it may be replaced.

Only what a plan of ours made is ever replaced or removed. Who made a file is told by the output's record, and where there is
none by the fingerprint in the file's own header; what is removed without being replaced must be on record. A folder may hold
nothing but files of its record. ``--update`` replaces what is ours, ``--force`` also a single file that is not; neither touches
a file in a folder that no plan lists, a link, a folder in the place of a file, anything else that is no regular file, or what
is no record in the record's place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ..errors import CannotCreate, NoPermission, raise_exhausted
from ..file_names import SAFETENSORS
from . import files
from .changes import Made, changed_sources
from .plan import Plan
from .record import (
    FileRecord,
    Record,
    begins_as_record,
    current_record,
    load,
    pending_path,
    record_of,
    record_path,
    status,
)
from .verify import first_damage, has_header

#: Names that a folder of a model may have beside its weights, for folders without a record.
_SIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
    "adapter_config.json", "mergekit_config.yml", "README.md", "LICENSE", "NOTICE", SAFETENSORS.index,
)  # fmt: skip


class Obstacle(NamedTuple):
    """Something in the way: ``needs`` is the flag that lets it be replaced, "" where none does."""

    path: Path
    what: str
    needs: str
    hint: str = ""


@dataclass
class Existing:
    """What ``look`` found.

    Attributes
    ----------
    complete : the whole output is there, made by this plan, from inputs with these contents
    obstacles : what is in the way if it is to be made (again)
    there : files, or the folder, that have a planned name now
    ours : files made by plans of ours, that lose their names to the output or are left over from an earlier one
    undecided : what only contents can tell, where they were not to be read; it does not count as ``complete`` then
    renewed : by output, records of which inputs or files have the same contents under new times
    """

    complete: bool = True
    obstacles: list[Obstacle] = field(default_factory=list)
    there: dict[Path, os.stat_result] = field(default_factory=dict)
    ours: dict[Path, os.stat_result] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)
    renewed: dict[Path, Record] = field(default_factory=dict)

    def refuse(self, *, force: bool = False, update: bool = False) -> None:
        """Raise CannotCreate for the first obstacle that the flags do not remove."""
        for path, what, needs, hint in self.obstacles:
            if not needs or not (force or (update and needs == "--update")):
                raise CannotCreate(f"{path} {what}", hint or f"Choose another name, or replace it with {needs}.")


def is_published(plan: Plan, index: int) -> bool:
    """Whether output file ``index`` of ``plan`` is complete under its final name.

    The header holds the plan's fingerprint, so equal header bytes and length mean: made by this very plan. Where it does not, its
    record must say so.
    """
    f = plan.files[index]
    found = status(f.path)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != f.size:
        return False
    output = next(output for output, numbers in plan.outputs.items() if index in numbers)
    records = () if f.names_job else (record_of(output), load(pending_path(plan.job_dir, output)))
    if not f.names_job and all(r is None or r.fingerprint != plan.fingerprint.hex() for r in records):
        return False
    try:
        with open(f.path, "rb", buffering=0, opener=_without_waiting) as got:
            return os.pread(got.fileno(), len(f.header), 0) == f.header
    except OSError as e:
        raise_exhausted(e)
        return False


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def look(plan: Plan, *, thorough: bool = True, progress: Callable[[int], None] | None = None) -> Existing:
    """See what is in the place of ``plan``'s outputs.

    Parameters
    ----------
    thorough : where times differ from those on record, let contents decide, which reads outputs or inputs; else it stays in
        doubt
    progress : told of the bytes read so
    """
    found = Existing()

    def has(file: FileRecord, path: Path) -> bool:
        return file.is_at(path) or (thorough and first_damage(path, file) is None)  # or a copy of it

    for output, numbers in plan.outputs.items():
        pending = _pending(plan, output)
        record = current_record(plan.job_dir, output, has) if pending else record_of(output)
        one = _Look(plan, output, numbers, record, pending, thorough, progress, found)
        one.record_place()
        one.folder() if plan.folder is not None else one.files()
    found.complete &= not found.undecided
    return found


def _pending(plan: Plan, output: Path) -> Mapping[Path, FileRecord]:
    """The files that a run gave their names, or was about to, before it was killed."""
    try:
        files.require_own_dir(plan.job_dir)
    except (NoPermission, CannotCreate):
        return {}
    record = load(pending_path(plan.job_dir, output))
    return dict(record.paths(output.parent)) if record is not None and record.output == output.name else {}


@dataclass
class _Look:
    """One output of ``look``."""

    plan: Plan
    output: Path
    numbers: Sequence[int]
    record: Record | None
    pending: Mapping[Path, FileRecord]
    thorough: bool
    progress: Callable[[int], None] | None
    found: Existing

    @property
    def planned(self) -> dict[Path, int]:
        return {self.plan.files[i].path: i for i in self.numbers}

    @property
    def inputs(self) -> set[tuple[int, int]]:
        return {(i.get("device", 0), i.get("inode", 0)) for i in self.plan.inputs}

    @property
    def recorded(self) -> dict[Path, FileRecord]:
        return dict(self.record.paths(self.output.parent)) if self.record else {}

    def record_place(self) -> None:
        """The record has a place of its own, which something else may have taken."""
        path, twin = record_path(self.output), load(self.plan.job_dir)
        there = status(path)
        if twin is not None:
            self._in_the_way(self.plan.job_dir, f"is the record of {twin.output}", "", "Choose another name.")
        if there is None or self.record is not None:
            return
        if not stat.S_ISREG(there.st_mode) or not begins_as_record(path):
            self._in_the_way(
                path, "is where the record of the output belongs, but is not a record", "",
                "Move it somewhere else, or choose another name for the output; it is never removed.",
            )  # fmt: skip
        elif (other := load(path)) is not None:
            self._in_the_way(path, f"is the record of {other.output}, not of {self.output.name}", "--force")
        else:
            self._in_the_way(path, "is a record that is damaged or of a later version", "--update")

    def files(self) -> None:
        """A file, or shards of one."""
        planned, recorded = self.planned, self.recorded
        changed = False
        for path in dict.fromkeys([*planned, *recorded, *self.pending]):
            there = status(path)
            if there is None or (path not in planned and (there.st_dev, there.st_ino) in self.inputs):
                continue
            if not stat.S_ISREG(there.st_mode):
                if path in planned:
                    self._in_the_way(path, _kind(path, there), "", "Choose another name.")
                continue
            published = path in planned and is_published(self.plan, planned[path])
            mine = self._is_mine(path, published)
            if mine:
                self.found.ours[path] = there
            if path in planned:
                self.found.there[path] = there
                changed |= path in recorded and not mine
            if path in planned or mine:
                self._check_sticky(path, there)
            if (mine or path in planned) and not (mine and published):
                edited = path in recorded and not mine
                what = (
                    "was modified after it was written" if edited else "already exists and was not written by this plan"
                )
                self._in_the_way(path, what, "--update" if mine else "--force", self._hint(path, mine))
        self._judge(changed)

    def _is_mine(self, path: Path, published: bool) -> bool:
        """Whether a plan of ours made the file, and it was not written to since; by its header if it is not on record."""
        recorded = self.recorded.get(path)
        if self._as_recorded(path, recorded):
            return True
        if path not in self.planned:
            return False
        job = self.plan.fingerprint.hex() if published else self.plan.provenance.job_of(path)
        # Another job than that on record: made by a later run, which was killed before it could write its own.
        return job not in ("", self.record.fingerprint if self.record and recorded else "")

    def folder(self) -> None:
        """A folder."""
        folder = self.output
        there = status(folder)
        if there is None:
            self.found.complete = False
            return
        if not stat.S_ISDIR(there.st_mode):
            self._in_the_way(folder, _kind(folder, there), "", "Choose another name.")
            self.found.complete = False
            return
        self.found.there[folder] = there
        self._check_sticky(folder, there)
        entries = list(walk(folder))
        known: Mapping[Path, FileRecord | None] = {**self.pending, **self.recorded} or older_files(self.plan, folder)
        changed = False
        for path, status_ in entries:
            name = path.relative_to(folder)
            if path not in known or not stat.S_ISREG(status_.st_mode):
                if not (stat.S_ISDIR(status_.st_mode) and any(path in k.parents for k in known)):
                    could_be_ours = self.record is None and name.as_posix() in _SIDE
                    who = (
                        "and nothing shows that streamconv wrote it"
                        if could_be_ours
                        else "which streamconv did not write"
                    )
                    self._in_the_way(
                        folder, f"holds {name}, {who}", "",
                        "Move it somewhere else, or choose another name; it is never removed.",
                    )  # fmt: skip
                continue
            recorded = known[path]
            if recorded is None or self._as_recorded(path, recorded):
                self.found.ours[path] = status_
            else:
                changed = True
                self.found.there[path] = status_
                self._in_the_way(path, "was modified after it was written", "--force", self._hint(path, False))
        if entries and not all(is_published(self.plan, i) for i in self.numbers):
            self._in_the_way(folder, "already exists and was not written by this plan", "--update")
        self._judge(changed)

    def _judge(self, changed: bool) -> None:
        """Is it the output itself? ``changed``: a file of it is not what it was."""
        if changed or not all(is_published(self.plan, i) for i in self.numbers):
            self.found.complete = False
            return
        record, plan = self.record, self.plan
        if record is None or record.fingerprint != plan.fingerprint.hex():
            times = [status(plan.files[i].path) for i in self.numbers]
            oldest = min(t.st_mtime_ns for t in times if t is not None)
            if any(max(i["mtime_ns"], i.get("ctime_ns", 0)) > oldest for i in plan.inputs):
                self._doubt("has no record of the contents it was made from, and inputs have later times")
            return
        name = ""
        if list(record.inputs) != list(plan.inputs):
            if not self.thorough:
                self.found.undecided.append(f"inputs of {self.output} have different times or locations than recorded")
                return
            name = self._changed_input(record)
        if name:
            self._doubt(f"was made from different contents of {name}")
            return
        now = replace(record, inputs=list(plan.inputs), files=[f.as_at(p) for p, f in self.recorded.items()])
        if now != record:
            self.found.renewed[self.output] = now

    def _doubt(self, what: str) -> None:
        """It is ours, but not what the inputs give now."""
        self.found.complete = False
        self._in_the_way(self.plan.folder or self.plan.files[self.numbers[0]].path, what, "--update")

    def _changed_input(self, record: Record) -> str:
        """The tensor, and the input, that are not what the output was made from; "" where all are."""
        paths = {str(self.output.parent / f.name): f for f in record.files}
        on_record = {
            (i, r.offset): Made(bytes.fromhex(r.digest), bytes.fromhex(r.source) or bytes(16))
            for i in self.numbers
            if (f := paths.get(str(self.plan.files[i].path))) is not None
            for r in f.ranges
        }
        chunks = [c for c in self.plan.chunks() if c.file in self.numbers]
        made = {c.number: found for c in chunks if (found := on_record.get((c.file, c.offset)))}
        if len(made) < len(chunks):
            return "its inputs, as far as its record shows"
        changed = changed_sources(chunks, made, self.progress)
        return f"tensor {changed[0].item.name}" if changed else ""

    def _as_recorded(self, path: Path, record: FileRecord | None) -> bool:
        """Whether the file is the one on record, or the one that a killed run gave its name."""
        known = [each for each in (self.pending.get(path), record) if each is not None]
        alike = [each for each in known if each.looks_like(path)]
        if any(has_header(path, each) for each in alike):
            return True
        if self.thorough:
            return any(first_damage(path, each) is None for each in known)
        if not alike:
            self.found.undecided.append(f"{path} has a different time or size than recorded")
        return not alike

    def _check_sticky(self, path: Path, there: os.stat_result) -> None:
        """In a sticky folder only its owner may replace a file."""
        parent, me = os.stat(path.parent), os.geteuid()
        if parent.st_mode & stat.S_ISVTX and me not in (0, there.st_uid, parent.st_uid):
            self._in_the_way(path, f"belongs to user {there.st_uid}, in a sticky folder", "", "Choose another folder.")

    def _hint(self, path: Path, mine: bool) -> str:
        if mine or path not in self.recorded:
            return ""
        return "streamconv verify shows what differs. Choose another name, or replace it with --force."

    def _in_the_way(self, path: Path, what: str, needs: str, hint: str = "") -> None:
        self.found.obstacles.append(Obstacle(path, what, needs, hint))


def _kind(path: Path, there: os.stat_result) -> str:
    """What has a name that a file should get."""
    if stat.S_ISLNK(there.st_mode):
        return f"is a symbolic link to {os.readlink(path)}; name the file itself"
    return "is a folder" if stat.S_ISDIR(there.st_mode) else "is not a regular file"


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below ``folder``, folders before what is in them; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        there = entry.stat(follow_symlinks=False)
        yield Path(entry.path), there
        if stat.S_ISDIR(there.st_mode):
            yield from walk(Path(entry.path))


def older_files(plan: Plan, folder: Path) -> dict[Path, FileRecord | None]:
    """The files of an output folder without a record that such a plan wrote: shards that name their job, and what lies beside.

    All files were made before the headers of the shards were written, the shards' first, and the folder got its name after that.
    So where something was added to the folder later, as its time tells, or was written later than it got its name, it is unknown
    whose it is.
    """
    shards = [p for p in folder.glob("*.safetensors") if plan.provenance.job_of(p)]
    times = [there.st_mtime_ns for p in shards if (there := status(p)) is not None]
    # What this plan would write byte for byte is no loss, whatever its origin: a copy may have lost its times.
    found: dict[Path, FileRecord | None] = dict.fromkeys(shards)
    found |= {f.path: None for i, f in enumerate(plan.files) if times and is_published(plan, i)}
    whole = status(folder)
    if not times or whole is None or whole.st_mtime_ns > max(times):
        return found
    for path in {*(folder / name for name in _SIDE), *(f.path for f in plan.files)}:
        there = status(path)
        if there is not None and stat.S_ISREG(there.st_mode) and min(times) <= there.st_mtime_ns <= whole.st_ctime_ns:
            found[path] = None
    return found
