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
from ..errors import UsageError
from .listing import state_path, verdict
from .mixing import Mix, MixSide, PlannedMix


def refuse_page(path: Path, made: Path, roots: Sequence[Path], read: Sequence[Path]) -> None:
    """Refuse the page of a mix that could not be written, or would harm what is read or made.

    Parameters
    ----------
    made : the list
    roots : what the user named as models
    read : files that are read

    Raises
    ------
    UsageError : it is no page by its name, or is the list, or is or belongs to what is read; and see ``check_report``
    """
    if not is_page_name(path):
        raise UsageError(
            f"{path}: the report of a mix is a page; its numbers are printed as JSON with --json",
            f"Name it {path.with_suffix('.html')}.",
        )
    real = Path(os.path.realpath(path.parent), path.name)
    if real in {Path(os.path.realpath(each.parent), each.name) for each in (made, state_path(made))}:
        raise UsageError(f"the report {path} cannot be the list itself", "Choose another name for --report.")
    refuse_overlap([path], [], roots, read, copied=False)
    check_report(path, None, force=False)


def write_page(path: Path, mix: Mix, plan: PlannedMix, options: Options) -> None:
    """Write the page of ``mix``; see ``refuse_page``, since something may have appeared there meanwhile."""
    check_report(path, None, force=False)
    files.write_atomically(path, report.mixed_page(facts_of(mix, plan.request.text.text_name, options.imatrix)))


def facts_of(mix: Mix, text: str, importance: Sequence[Path]) -> report.Mixed:
    """What the page of ``mix`` shows, whose ``text`` and ``importance`` matrices are named."""
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
        text if mix.difference is not None else "",
        [os.fspath(path) for path in importance],
        notes,
        version("streamconv"),
    )


def _candidate(name: str, side: MixSide) -> report.Candidate:
    measured = side.measured_kl
    value, uncertainty = (None, 0.0) if measured is None else (measured.value, measured.uncertainty)
    return report.Candidate(name, side.n_bytes, value, uncertainty, side.predicted_kl)
