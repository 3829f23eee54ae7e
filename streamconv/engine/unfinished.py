"""Whether a run may go on with the unfinished job that it finds: not with one of another plan, or of inputs as they were before."""

from __future__ import annotations

import os
from typing import NoReturn

from ..errors import InputChanged, PlanDiffers
from .index_file import Header, read_progress
from .job_files import difference, recorded_plan
from .journal import Journal
from .plan import Plan


def unfinished(plan: Plan, discard: bool, notes: list[str]) -> Journal | None:
    """The index of an unfinished job that ``plan`` may go on with; None when there is none, or none that can be trusted.

    Raises
    ------
    PlanDiffers, InputChanged : it belongs to another plan or to other inputs, and is not to be discarded
    """
    path, journal = plan.job_dir / "index.wal", None
    try:
        journal = Journal.open(path)
        if journal is None:
            if os.path.lexists(path) and not discard:
                notes.append("the unfinished job's index was unusable; starting over")
            return None
        if journal.header.fingerprint == plan.fingerprint:
            return journal
        _refuse(plan, journal.header)
    except (PlanDiffers, InputChanged) as e:
        if journal is not None:
            kept = sum(s.length for s in journal.commits())
            journal.close()
        if not discard:
            raise
        if journal is not None and kept:
            notes.append(f"{e.message}; the {kept:,} bytes that it had written are discarded")
    return None


def refuse_another(plan: Plan) -> None:
    """Nothing is written for this.

    Raises
    ------
    PlanDiffers, InputChanged : there is an unfinished job of another plan, or of other inputs
    NoPermission : the index belongs to another user
    """
    found = read_progress(plan.job_dir / "index.wal")
    if found is not None and found.header.fingerprint != plan.fingerprint:
        _refuse(plan, found.header)


def _refuse(plan: Plan, header: Header) -> NoReturn:
    """Say why the unfinished job with this ``header``, which has another fingerprint, is not that of ``plan``.

    Raises
    ------
    PlanDiffers, InputChanged
    """
    if header.inputs != plan.inputs_digest:
        _refuse_changed_inputs(plan)
    raise PlanDiffers(
        f"{plan.job_dir} holds an unfinished job that was planned differently{difference(plan)}",
        "Repeat that command to finish it, or start over with --force.",
    )


def _refuse_changed_inputs(plan: Plan) -> None:
    """Raise InputChanged, and name the file, when an input has other contents than when the job was planned.

    As far as plan.json tells: of the same model, by the size and the digest of what is sampled.
    """
    record = recorded_plan(plan.job_dir)
    inputs = record.get("inputs")
    old = {e.get("name"): e for e in inputs if isinstance(e, dict)} if isinstance(inputs, list) else {}
    if record.get("source") != plan.description.get("source"):
        return
    for now in plan.inputs:
        before = old.get(now["name"], now)
        if any(key in before and before[key] != now.get(key) for key in ("size", "digest")):
            raise InputChanged(
                f"{now['name']} was changed after the unfinished job {plan.job_dir} was planned",
                "Restore the old file to resume, or start over with --update.",
            )
