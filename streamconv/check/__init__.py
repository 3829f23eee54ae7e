"""Predict what a loader will reject in a file, or load and get wrong.

Of GGUF files what is checked is llama.cpp's behaviour (and, for Gemma 3, candle's), of ``.sbs`` files gemma.cpp's (``sbs/``). One
module per concern, each with

    check(subject: Subject) -> Iterator[Finding]

What the loader wants of each architecture is data: ``loader_tensors.json``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ..errors import BadInput
from ..file_names import SBS, container_of
from ..metadata import Metadata
from ..sources import read_splits
from ..sources.frame_cache import DEFAULT_BYTES, FrameCache
from ..sources.local_files import open_file
from . import endings, key_types, keys, layout, rope, template, tensors, vocabulary
from .finding import Finding, Severity
from .subject import Shaped, Subject

__all__ = ["Finding", "Severity", "check_file", "check_gguf", "judge"]

_CHECKS = (
    layout.check, keys.check, key_types.check, tensors.check, rope.check, vocabulary.check, endings.check, template.check,
)  # fmt: skip


def check_file(path: Path, scan: bool = True, cache_bytes: int = DEFAULT_BYTES) -> list[Finding]:
    """``check_gguf``, or the same for a weight file of gemma.cpp, by the ending of ``path``."""
    if container_of(path.name) is SBS:
        from .sbs import check_sbs

        return check_sbs(path, scan)
    return check_gguf(path, scan, cache_bytes)


def check_gguf(path: str | os.PathLike[str], scan: bool = True, cache_bytes: int = DEFAULT_BYTES) -> list[Finding]:
    """Everything worth knowing before a GGUF file is loaded, errors first.

    Parameters
    ----------
    path : the file, or the first file of a split model
    scan : read all data in search of NaN and infinity; without, only headers are read
    cache_bytes : memory for frames of compressed files

    Errors: InputMissing and NoPermission. A file too damaged to be read gives one finding, not an exception.
    """
    path = Path(path)
    try:
        opened = partial(open_file, cache=FrameCache(cache_bytes))
        subject = Subject.of(read_splits(path, open_file=opened, lenient=True))
    except BadInput as e:
        return [Finding("error", e.message)]
    findings = _judge(subject)
    if scan:
        from . import values

        findings += values.check(subject)
    return sorted(findings, key=lambda finding: finding.rank)


def judge(metadata: Metadata, tensors: Mapping[str, Shaped]) -> list[Finding]:
    """What a loader will make of a model that is not written yet, errors first.

    Parameters
    ----------
    metadata : the key/values of its header
    tensors : name -> anything with a ``shape``, slowest dimension first
    """
    return sorted(_judge(Subject(metadata, tensors)), key=lambda finding: finding.rank)


def _judge(subject: Subject) -> list[Finding]:
    return [finding for check in _CHECKS for finding in check(subject)]
