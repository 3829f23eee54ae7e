"""The report of a conversion as a page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from .. import report
from ..engine import run as runs
from ..errors import UsageError
from .options import Options
from .prepared import Output, Prepared
from .sampled_errors import SAMPLE_WEIGHTS, SampledError, sampled_errors

_ENDINGS = (".html", ".htm")


class Run(NamedTuple):
    """How a run went.

    Attributes
    ----------
    seconds : of all of it
    peak_bytes : private memory; 0 where it was not looked at
    progress : seconds since it began, and bytes of the output that were made by then
    """

    seconds: float
    peak_bytes: int = 0
    progress: Sequence[tuple[float, int]] = ()


def is_page_name(path: Path | None) -> bool:
    """Whether a report of that name is a page."""
    return path is not None and path.suffix.lower() in _ENDINGS


def refuse_page(options: Options, prepared: Prepared) -> None:
    """UsageError where a page would have nothing to show, or could not measure what it shows."""
    path = options.report
    if path is None or not is_page_name(path):
        return
    if options.evict and prepared.hub is not None:
        raise UsageError(
            f"{path}: a page compares the output with its inputs, which --evict frees",
            f"Leave --evict out, or use --report {path.with_suffix('.jsonl')}.",
        )
    if not any(output.tensors for output in prepared.outputs):
        raise UsageError(f"{path}: the output has no tensors that a page could show", "Leave --report out.")


def conversion_page(prepared: Prepared, outcome: runs.Outcome | None, run: Run, options: Options) -> str:
    """The page of a finished conversion; measures the errors that it shows.

    Raises
    ------
    StreamconvError : a file cannot be read, or an input has changed since
    """
    plan, notes = prepared.plan, [*prepared.warnings, *(outcome.notes if outcome else ())]
    is_here = prepared.hub is None or not prepared.hub.missing_bytes()
    errors = sampled_errors(prepared) if is_here else {}
    if is_here:
        notes.append(
            f"Errors are of rows of the finished output, decoded and compared with the source: all rows of a tensor of at most"
            f" {SAMPLE_WEIGHTS:,} weights, of a larger one as many rows as hold so many, from 16 places at equal distances."
        )
    else:
        notes.append("No error was measured: the output was complete, and its source is no longer on this machine.")
    if prepared.left_out:
        notes.append(f"{len(prepared.left_out)} tensors are left out, such as {next(iter(prepared.left_out))}.")
    made = report.Converted(
        os.fspath(prepared.source),
        [_output(prepared, output, errors) for output in prepared.outputs],
        sum(i["size"] for i in plan.inputs),
        plan.total_bytes,
        run.seconds if outcome else None,
        outcome.resumed_bytes if outcome else 0,
        run.peak_bytes if outcome else 0,
        run.progress if outcome else (),
        [os.fspath(path) for path in options.imatrix],
        notes,
        version("streamconv"),
    )
    return report.converted_page(made)


def _output(prepared: Prepared, output: Output, errors: Mapping[tuple[int, int], SampledError]) -> report.Output:
    unknown = SampledError(None, None)
    tensors = []
    for t in output.tensors:
        error = errors.get((t.item.number, t.part), unknown)
        tensors.append(report.Tensor(
            t.name, t.item.rows.shape, t.item.rows.dtype, t.encoding.type.name, t.encoding.n_bytes, t.reason, *error
        ))  # fmt: skip
    return report.Output(os.fspath(output.path), output.type, output.arch or prepared.arch, tensors)
