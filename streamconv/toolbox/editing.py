"""Other keys in the header of a GGUF file: in a new file, or in the place of the old one.

In place, a change that lies within one sector of the disk is one write (``engine.patching``). Every other change makes a new file
by a job of its own, which gets the name in one step, so that at any moment the old file or the new one is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..check import judge
from ..conversion.execution import execute
from ..conversion.options import Options
from ..conversion.prepared import Prepared
from ..conversion.unfinished import check_name
from ..conversion.verifying import owners_of
from ..engine import patching
from ..engine.run import Outcome, Reporter
from ..engine.unfinished import refuse_another
from ..errors import BadInput, CannotCreate, UsageError
from ..file_names import GGUF, part_names, plain_name
from ..metadata import Metadata, Value
from ..sources.local_files import stored_at
from ..targets import gguf
from ..targets.layout import FileLayout
from ..units import size
from .changes import Changes
from .copies import Stored, accept, plan_copies, require_gguf_name
from .values import shortened

_ALIGNMENT = "general.alignment"
#: keys that loaders and other tools take for granted
_FIXED = ("general.architecture", _ALIGNMENT)
#: arrays with an element for every token
_BY_TOKEN = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")


@dataclass(frozen=True)
class Edit:
    """What is to be done.

    Attributes
    ----------
    path : the file, or the first of a split model
    before, after : its keys
    prepared : the new file or files
    in_place : whether the new file takes the name of the old one
    header, new_header : of ``path``, as far as the data
    is_patch : whether the change is made by one write into ``path``
    notes : what a user should know
    """

    path: Path
    before: Metadata
    after: Metadata
    prepared: Prepared
    in_place: bool
    header: bytes
    new_header: bytes
    is_patch: bool
    notes: Sequence[str]

    @property
    def changed(self) -> Iterator[tuple[str, Value | None, Value | None]]:
        """Keys with their values before and after, None where there is none."""
        for key in dict.fromkeys([*self.before.values, *self.after.values]):
            one, other = self.before.values.get(key), self.after.values.get(key)
            if one is not other and one != other:
                yield key, one, other

    @property
    def is_nothing(self) -> bool:
        """Whether the file is as it is to be."""
        return self.in_place and self.header == self.new_header

    @property
    def how(self) -> str:
        """In words, what is written."""
        plan = self.prepared.plan
        if self.is_nothing:
            return "nothing is to be changed"
        if self.is_patch:
            start, stop = patching.changed_range(self.header, self.new_header) or (0, 0)
            return f"in place, {stop - start} of its bytes from byte {start:,} on"
        names = ", ".join(f.path.name for f in plan.files[:3]) + (", …" if len(plan.files) > 3 else "")
        whole = (
            f"a new file of {size(plan.total_bytes)} takes the name"
            if self.in_place
            else f"{size(plan.total_bytes)} to"
        )
        return f"{whole} {names}"

    def lines(self) -> Iterator[str]:
        """What changes, for people."""
        for key, one, other in self.changed:
            yield f"{key}: {shortened(one)} -> {shortened(other)}"
        yield f"{self.path}: {self.how}"

    def facts(self) -> dict[str, Any]:
        """The same for pipelines, JSON-able."""
        how = "nothing" if self.is_nothing else "patch" if self.is_patch else "copy"
        changes = [
            {"key": key, "before": shortened(one), "after": shortened(other)} for key, one, other in self.changed
        ]
        names = [str(f.path) for f in self.prepared.plan.files]
        return {"source": str(self.path), "files": names, "how": how, "changes": changes, "notes": list(self.notes)}


def prepare_edit(
    source: str | os.PathLike[str], output: str | os.PathLike[str] | None, changes: Changes, options: Options
) -> Edit:
    """Plan to write ``source`` with other keys to ``output``, of a split model as shards of that name; None: in its place.

    In place, only the first file of a split model, which has the keys, is written. Nothing is written here.

    Parameters
    ----------
    options : ``force`` lets keys change so that loaders may refuse the file

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission, CannotCreate
    """
    if not changes:
        raise UsageError("nothing is said to be changed", "Such as --set general.name=Name; --help lists the options.")
    path, notes = Path(source), list[str]()
    if output is None:
        _refuse_in_place(path)
    whole = Stored.open(path, options)
    after = changes.applied(whole.metadata, notes)
    alignment = _alignment(after)
    if output is None and len(whole.files) > 1 and alignment != whole.alignment:
        # The record of all shards knows this one by where its tensors lie behind each other.
        raise UsageError(f"{path} is part of a split model, whose {_ALIGNMENT} is not changed in place", "Give an OUT.")
    _refuse_harm(whole, after, notes, options)
    # Strings of the file itself, in the mapping: read before anything is written there.
    head = whole.files[0]
    header = bytes(head.file.view(0, min(head.header.data_start, head.file.size)))
    stored = Stored(path, whole.files[:1]) if output is None else whole
    target = path if output is None else check_name(output)
    require_gguf_name(target)
    files = _files(stored, target, after, alignment)
    is_patch = output is None and _can_patch(stored, files[0], header)
    if not is_patch and header != files[0].header:
        _refuse_loss(stored, notes, in_place=output is None, force=options.force)
    options = replace(options, force=True) if output is None else options
    prepared = plan_copies(stored, target, files, options, notes, over_input=output is None)
    return Edit(
        path, whole.metadata, after, prepared, output is None, header, files[0].header,
        is_patch, notes,
    )  # fmt: skip


def settle(source: str | os.PathLike[str]) -> None:
    """Complete what an edit of ``source`` in place left that was killed, and tidy up after it; see ``patching.settle``."""
    path = Path(source)
    for output in dict.fromkeys([path, *(output for output, _ in owners_of(path))]):
        patching.settle(output)


def carry_out_in_place(edit: Edit, options: Options, reporter: Reporter) -> Outcome | None:
    """Change the file where it lies, or make a new one that takes its name; None where one write was enough, or nothing.

    Raises
    ------
    Every error of the tree; the old file or the new one is there, and the same command goes on.
    """
    path, plan = edit.path, edit.prepared.plan
    if edit.is_nothing:
        return None
    if not edit.is_patch and not options.force:
        refuse_another(plan)
    owners = [(output, record) for output, record in owners_of(path) if edit.is_patch or output != path]
    known = [
        output for output, record in owners
        if patching.announce(output, record, path, edit.header, edit.new_header)
    ]  # fmt: skip
    outcome = None
    if edit.is_patch:
        patching.patch(path, edit.header, edit.new_header)
    else:
        outcome = execute(edit.prepared, replace(options, force=True), reporter)
        if known and path not in known:  # which are made again without this file being told of
            patching.forget(path)
    for output in known:
        patching.renew(output, path)
    return outcome


def _files(stored: Stored, target: Path, after: Metadata, alignment: int) -> list[FileLayout]:
    """The file, or its shards, the first one with the keys ``after``."""
    n = len(stored.files)
    names = part_names(target.stem, n, GGUF.endings[0]) if n > 1 else [target.name]
    infos, files = stored.infos, []
    for number, (name, numbers, each) in enumerate(zip(names, stored.shards, stored.files, strict=True)):
        metadata, aligned = (after, alignment) if number == 0 else (each.metadata, each.header.alignment)
        layout = gguf.file_layout(target.with_name(name), metadata, infos, numbers, aligned)
        files.append(replace(layout, accept=accept))
    return files


def _can_patch(stored: Stored, file: FileLayout, header: bytes) -> bool:
    """Whether all that changes in the file lies in one sector of its header."""
    head = stored.files[0]
    data = [head.header.data_start + info.offset for info in head.tensors.values()]
    return [offset for _, offset in file.tensors] == data and patching.changed_range(header, file.header) is not None


def _refuse_in_place(path: Path) -> None:
    path = stored_at(path)
    if plain_name(path.name) != path.name:
        raise UsageError(f"{path} is compressed, and cannot be changed in place", "Give the name of an output.")
    if path.is_symlink():
        raise CannotCreate(f"{path} is a symbolic link to {os.readlink(path)}", "Name the file itself, or an output.")
    if path.is_file() and path.stat().st_nlink > 1:
        raise CannotCreate(
            f"{path} is one of {path.stat().st_nlink} names (hard links) of one file", "Give the name of an output."
        )


def _alignment(metadata: Metadata) -> int:
    found = metadata.values.get(_ALIGNMENT)
    if found is None:
        return gguf.ALIGNMENT
    if found.type != "UINT32" or found.value < 1 or found.value & (found.value - 1):
        raise UsageError(f"{_ALIGNMENT} must be a power of two of type u32, not {found.value}")
    return int(found.value)


def _refuse_loss(stored: Stored, notes: list[str], *, in_place: bool, force: bool) -> None:
    """Say what lies behind the tensors and would be left out; BadInput where that would be lost."""
    for file in stored.files:
        end = max((t.offset + t.n_bytes for t in file.tensors.values()), default=0) + file.header.data_start
        end += -end % file.header.alignment
        if (n := file.file.size - end) <= 0:
            continue
        text = f"{file.file.path}: the {n:,} bytes from byte {end:,} on are of no tensor, and a new file is made without them"
        if in_place and not force:
            raise BadInput(text, "Give an OUT, which keeps the old file; --force leaves them out.")
        notes.append(text)


def _refuse_harm(stored: Stored, after: Metadata, notes: list[str], options: Options) -> None:
    """BadInput where a loader that takes the file as it is would refuse it, or read it wrongly; a note with ``force``."""
    before = stored.metadata
    told = [f"{key} would change, which runtimes go by" for key in _FIXED if before.get(key) != after.get(key)]
    for key in _BY_TOKEN:
        one, other = before.values.get(key), after.values.get(key)
        lengths = [len(v.value) if v is not None and v.type == "ARRAY" else 0 for v in (one, other)]
        if one is not other and lengths[0] != lengths[1]:
            told.append(f"{key} would have {lengths[1]:,} elements instead of {lengths[0]:,}")
    tensors = {info.name: info for info in stored.infos}
    errors = {f.message for f in judge(before, tensors) if f.severity == "error"}
    told += [f.message for f in judge(after, tensors) if f.severity == "error" and f.message not in errors]
    if told and not options.force:
        raise BadInput(f"{stored.path}: {told[0]}", "No runtime may load the result; --force writes it anyway.")
    notes += [f"--force: {text}" for text in told]
