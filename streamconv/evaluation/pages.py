"""The page of a comparison: refused before the work where it could not be written, written after it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from .. import report
from ..conversion.overlap import refuse_overlap
from ..conversion.report_page import is_page_name
from ..conversion.reports import check_report
from ..engine import files
from ..errors import UsageError
from ..forward.chunks import Chunks
from ..forward.divergence import Divergence, running, summary


def refuse_page(path: Path, roots: Iterable[Path], read: Iterable[Path]) -> None:
    """Refuse the page of a comparison that could not be written, or would harm what is read.

    Parameters
    ----------
    roots : what the user named as models
    read : files that are read

    Raises
    ------
    UsageError : it is no page by its name, or is or belongs to what is read; and see ``check_report``
    """
    if not is_page_name(path):
        raise UsageError(
            f"{path}: the report of a comparison is a page; its numbers are printed as JSON with --json",
            f"Name it {path.with_suffix('.html')}.",
        )
    refuse_overlap([path], [], roots, read, copied=False)
    check_report(path, None, force=False)


def write_page(
    path: Path,
    reference: str | os.PathLike[str],
    models: Sequence[str | os.PathLike[str]],
    chunks: Chunks,
    divergences: Sequence[Divergence],
    text_name: str,
) -> None:
    """Write the page of a comparison; see ``refuse_page``, since something may have appeared there meanwhile."""
    check_report(path, None, force=False)
    shape = chunks.targets.shape
    compared = [
        report.Compared(
            os.fspath(name), summary(found), found.kld.reshape(shape), list(running(found.log_p.reshape(shape))),
            list(running(found.base.reshape(shape))),
        )
        for name, found in zip(models, divergences, strict=True)
    ]  # fmt: skip
    text = report.compared_page(
        os.fspath(reference), compared, text=text_name, n_ctx=chunks.inputs.shape[1], version=version("streamconv")
    )
    files.write_atomically(path, text)
