"""Unfinished jobs that are not to be gone on with: of another plan, or of inputs as they were before."""

from __future__ import annotations

from typing import NoReturn

from ..errors import InputChanged, PlanDiffers
from .job_files import difference, recorded_plan
from .journal import Header, read_progress
from .plan import Plan


def refuse_another(plan: Plan) -> None:
    """Nothing is written for this.

    Raises
    ------
    PlanDiffers, InputChanged : there is an unfinished job of another plan, or of other inputs
    NoPermission : the index belongs to somebody else
    """
    found = read_progress(plan.job_dir / "index.wal")
    if found is not None and found[0].fingerprint != plan.fingerprint:
        refuse(plan, found[0])


def refuse(plan: Plan, header: Header) -> NoReturn:
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
                "Put the old file back to go on, or start over with --update.",
            )
