"""Whether a run may go on with the unfinished job that it finds."""

from __future__ import annotations

import os

from ..errors import InputChanged, PlanDiffers
from .another import refuse
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
        refuse(plan, journal.header)
    except (PlanDiffers, InputChanged) as e:
        if journal is not None:
            kept = sum(s.length for s in journal.stamps())
            journal.close()
        if not discard:
            raise
        if journal is not None and kept:
            notes.append(f"{e.message}; the {kept:,} bytes that it had made are discarded")
    return None
