"""Plans an adapter folder: what turns one model into another, as PEFT saves it."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from .. import found
from ..errors import UsageError
from ..file_names import GGUF, SAFETENSORS, container_of
from .options import Options
from .outputs import opening, planned
from .prepared import Prepared
from .recipe import Recipe
from .report_page import is_page_name
from .targets.folder import ADAPTER
from .unfinished import check_name

if TYPE_CHECKING:  # merging takes as long to load as all the rest, and most conversions need none of it
    from ..merging.extraction import Extraction


def prepare_adapter(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    output: str | os.PathLike[str],
    extraction: Extraction,
    options: Options,
) -> Prepared:
    """Plan the extraction of an adapter: reads headers and configurations, writes nothing.

    Raises
    ------
    UsageError, BadInput, InputMissing, NoPermission : what is wrong, before anything is written
    """
    from ..merging.extraction import open_extraction

    if not os.fspath(base) or not os.fspath(tuned):
        raise UsageError("a file name is empty")
    output = check_name(output)
    if container_of(output.name) in (GGUF, SAFETENSORS):
        raise UsageError(f"{output}: an adapter is written as a folder", f"Name it {output.with_suffix('')}.")
    if options.report is not None and is_page_name(options.report):
        raise UsageError(
            f"{options.report}: there is no page for an adapter, whose factors are computed and not encoded",
            f"Use --report {options.report.with_suffix('.jsonl')}.",
        )

    with found.recorded() as plugins, opening(output, options, ADAPTER) as opener:
        checkpoint = open_extraction(
            opener.open(base, as_saved=True),
            opener.open(tuned, as_saved=True),
            extraction,
            base_name=os.fspath(base),
            ram_bytes=options.ram,
        )
        prepared = planned(checkpoint, opener, output, options, ADAPTER, plugins)
    recipe = Recipe((os.fspath(base), os.fspath(tuned)), os.fspath(output), options, asdict(extraction))
    return replace(prepared, recipe=recipe)
