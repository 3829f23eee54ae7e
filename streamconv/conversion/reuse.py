"""Which older outputs a job may copy tensors from: those the user names, else those beside OUT whose record has a manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.record import Record, load, record_path
from ..engine.reusing import Donor, Reusable, find
from ..engine.run import Outcome
from ..errors import InputMissing, UsageError
from ..units import size
from .options import Options
from .prepared import Prepared
from .verifying import records


@dataclass
class Reuse:
    """What a job may copy.

    Attributes
    ----------
    found : of its tensors
    notes : older outputs that were named and have nothing to offer
    is_named : whether the user asked for it
    """

    found: Reusable
    notes: list[str]
    is_named: bool

    def told(self) -> list[str]:
        """What a user should know: of outputs that were named, all that is not copied, of others what should have been."""
        return [*self.notes, *(self.found.told() if self.is_named else ()), *self.found.told_of_missed()]


def refuse_missing(olds: Iterable[Path], *, is_begun: bool) -> None:
    """Refuse an older output that is not there, unless the job has begun, which goes on without it.

    Raises
    ------
    InputMissing : names it
    UsageError : no output can have such a name
    """
    for old in olds:
        try:
            records(old)
        except InputMissing as e:
            if not is_begun and not os.path.lexists(old):
                raise InputMissing(
                    f"--reuse: {e.message}", "Leave it out, or give the name that convert was given."
                ) from e
        except UsageError as e:
            raise UsageError(f"--reuse: {e.message}", e.hint) from e


def reusable(prepared: Prepared, options: Options) -> Reuse:
    """What older outputs have of ``prepared``; reads their records."""
    found = Reuse(Reusable(), [], bool(options.reuse))
    if options.no_reuse:
        return found
    if options.measure or options.report is not None:
        if options.reuse:
            found.notes.append(
                "--reuse has no effect: --report measures the error of every tensor, which takes making it"
            )
        return found
    donors = _named(options, found.notes) if options.reuse else _beside(prepared, with_itself=not options.force)
    found.found = find(prepared.plan, donors)
    return found


def _named(options: Options, notes: list[str]) -> list[Donor]:
    """The outputs that the user named."""
    donors = []
    for old in options.reuse:
        try:
            named = [Donor(output, record) for output, record in records(old).items()]
        except InputMissing as e:
            notes.append(f"nothing is copied from {old}: {e.message}")
            continue
        for donor in named:
            if not donor.has_manifest:
                notes.append(
                    f"nothing is copied from {donor.output}: its record has no manifest, as it was made without --manifest"
                    " or by an earlier version"
                )
        donors += named
    return donors


def _beside(prepared: Prepared, *, with_itself: bool) -> list[Donor]:
    """The outputs in the folder of the job's own; of the same source or not is told by their tensors."""
    plan = prepared.plan
    mine = {output.name for output in plan.outputs}
    donors = []
    for path in sorted(plan.output.parent.glob(".*.streamconv")):
        record = _with_manifest(path)
        if record is not None and (with_itself or record.output not in mine):
            donors.append(Donor(plan.output.parent / record.output, record))
    return donors


def _with_manifest(path: Path) -> Record | None:
    """The record in the file ``path`` if it is one of an output beside it, and has a manifest."""
    record = load(path)
    if record is None or record_path(path.parent / record.output).name != path.name:
        return None
    return record if any(f.tensors for f in record.files) else None


def planned_copies(facts: Mapping[str, Any]) -> Iterator[str]:
    """For a plan, JSON-able: what would be copied."""
    found = facts["reuse"]
    if found["bytes"]:
        yield (
            f"copies {size(found['bytes'])} ({found['tensors']} tensors) from {', '.join(found['from'])}; makes"
            f" {size(facts['output_bytes'] - found['bytes'])}"
        )


def told_of_copies(outcome: Outcome) -> str:
    """For the summary: what was copied, and what was made; "" where nothing was copied."""
    if not outcome.copied_bytes:
        return ""
    names = ", ".join(map(str, outcome.copied_from))
    total = outcome.copied_bytes + outcome.made_bytes + outcome.resumed_bytes
    return f"  {size(total)} written: {size(outcome.copied_bytes)} copied from {names}, {size(outcome.made_bytes)} made"
