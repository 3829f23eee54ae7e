"""A list of types for a size, from the names of a source and of the list: taken as it is where it is there already."""

from __future__ import annotations

from pathlib import Path

from ..conversion import Options
from ..engine import run as runs
from ..errors import UsageError
from .listing import Listed, prepare_list, write_list
from .mixing import forget_measured, make_mix
from .page import refuse_report, require_page, write_page
from .planning import MixRequest, prepare_mix
from .result import Mix


def make_list(
    source: str,
    path: Path,
    output: Path,
    request: MixRequest,
    options: Options,
    reporter: runs.Reporter,
    *,
    given: Options | None = None,
    changed: str = "Choose another name, or use --force.",
    is_dry: bool = False,
) -> Mix | Listed:
    """The list ``path``: one that is there already, or a new one.

    Parameters
    ----------
    output : the file that will be converted, or a name in its place
    given : options of the conversion that the list is for, whose report is another; None: that of ``options`` is the list's page
    changed : what to do about a file that is no list of ours, or was changed
    is_dry : nothing is to be written

    Raises
    ------
    StreamconvError : see ``prepare_mix``, ``prepare_list``, ``refuse_report`` and ``make_mix``
    """
    page = options.report if given is None else None
    plan = prepare_mix(source, output, request, options)
    try:
        found = prepare_list(path, plan, options, changed)
        report = (given or options).report
        if report:
            refuse_report(report, path, plan, given or options)
        if found is not None:
            if page:
                require_page(page, path, plan)
            forget_measured(plan, path, options)
            return found
        if is_dry:
            raise UsageError(
                "--dry-run: the types are not known before they are measured",
                "Run streamconv mix first, and give its list with --tensor-type-file.",
            )
        for note in plan.notes:
            reporter.message(f"note: {note}")

        def write(made: Mix) -> None:
            if page:  # before the list, which says that all is done
                write_page(page, made, plan, options)
            write_list(path, made, plan, options)

        return make_mix(plan, path, options, reporter, write)
    finally:
        plan.close()
