"""Plans an adapter folder: what turns one model into another, as PEFT saves it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import found
from ..errors import UsageError
from ..sources.checkpoint import Checkpoint
from .opening import open_source
from .options import Options
from .outputs import planned
from .prepared import Prepared
from .supply import Supply
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
    if output.suffix in (".gguf", ".safetensors"):
        raise UsageError(f"{output}: an adapter is written as a folder", f"Name it {output.with_suffix('')}.")

    def open_(supply: Supply) -> Checkpoint:
        return open_extraction(
            open_source(base, options, supply, as_saved=True),
            open_source(tuned, options, supply, as_saved=True),
            extraction,
            base_name=os.fspath(base),
            ram_bytes=options.ram,
        )

    with found.recorded() as plugins:
        return planned(output, options, ADAPTER, open_, plugins)
