"""The page of a mix: refused before anything is measured where it could not be written, written before the list is."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from .. import report
from ..conversion import Options
from ..conversion.overlap import refuse_overlap
from ..conversion.report_page import is_page_name
from ..conversion.reports import check_report
from ..engine import files
from ..engine.plan import job_folder
from ..engine.record import record_path
from ..errors import CannotCreate, UsageError
from .listing import verdict
from .planning import PlannedMix
from .result import Mix, MixSide


def require_page_name(path: Path) -> None:
    """UsageError for a report of a mix that is no page by its name."""
    if not is_page_name(path):
        raise UsageError(
            f"{path}: the report of a mix is a page; its numbers are printed as JSON with --json",
            f"Name it {path.with_suffix('.html')}.",
        )


def refuse_report(path: Path, made: Path, plan: PlannedMix, options: Options) -> None:
    """Refuse a report that could not be written, or would harm what is read, or the list ``made``.

    Raises
    ------
    UsageError : it is the list or what is made by it, or is or belongs to what is read; and see ``check_report``
    """
    taken = [made, job_folder(made), plan.output, job_folder(plan.output), record_path(plan.output)]
    if {_place(path), *_place(path).parents} & {*map(_place, taken)}:
        raise UsageError(f"the report {path} cannot be the list or the output", "Choose another name for --report.")
    given = [p for p in (options.tensor_type_file, plan.request.text.text, *options.imatrix) if p is not None]
    read = [*(f.path for f in plan.checkpoint.inputs), *given]
    refuse_overlap([path], [], plan.roots, read, copied=False)
    check_report(path, None, options.force)


def _place(path: Path) -> Path:
    return Path(os.path.realpath(path.parent), path.name)


def require_page(path: Path, made: Path, plan: PlannedMix) -> None:
    """CannotCreate where the page of the finished list ``made`` is not there: what it would show is not kept."""
    if not path.exists() or _of(plan.inputs) not in path.read_text("utf-8", errors="replace"):
        raise CannotCreate(
            f"{path}: the list {made} is complete, and what was measured for it is not kept for a page",
            "Use --force to measure again, or leave --report out.",
        )


def write_page(path: Path, mix: Mix, plan: PlannedMix, options: Options) -> None:
    """Write the page of ``mix``; see ``refuse_report``, since something may have appeared there meanwhile."""
    check_report(path, None, options.force)
    files.write_atomically(
        path, report.mixed_page(facts_of(mix, plan.request.text.text_name, options.imatrix, plan.inputs))
    )


def _of(inputs: str) -> str:
    """By which the page of a list is known."""
    return f"Digest of the inputs, as in the list: {inputs}."


def facts_of(mix: Mix, text: str, importance: Sequence[Path], inputs: str = "") -> report.Mixed:
    """What the page of ``mix`` shows, whose ``text`` and ``importance`` matrices are named; ``inputs``: digest of these."""
    told = verdict(mix)
    tensors = [
        report.MixedTensor(
            t.name, t.shape, t.type, t.n_bytes, t.standard_type, math.sqrt(max(t.error, 0.0)), t.sensitivity, t.cost, t.reason
        )
        for t in mix.tensors
    ]  # fmt: skip
    notes = [
        f"Sensitivities were measured on {mix.n_measured:,} tokens with every matrix in {mix.reference_type} by itself."
    ]
    if mix.difference is not None:
        notes.append(f"The mixes were compared on {mix.n_checked:,} other tokens.")
    if inputs:
        notes.append(_of(inputs))
    return report.Mixed(
        mix.source,
        mix.target,
        mix.bits_per_weight,
        _candidate("mix", mix.own),
        [] if mix.standard is None else [_candidate(mix.standard.name, mix.standard)],
        not mix.standard_kept,
        f"{told[:1].upper()}{told[1:]}.",
        tensors,
        None if mix.difference is None else (mix.difference.value, mix.difference.uncertainty),
        f"parts of {text}" if mix.difference is not None else "",
        [os.fspath(path) for path in importance],
        notes,
        version("streamconv"),
    )


def _candidate(name: str, side: MixSide) -> report.Candidate:
    measured = side.measured_kl
    value, uncertainty = (None, 0.0) if measured is None else (measured.value, measured.uncertainty)
    return report.Candidate(name, side.n_bytes, value, uncertainty, side.predicted_kl)
