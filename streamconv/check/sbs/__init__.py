"""Predict what gemma.cpp will reject in a weight file, or load and crash over later.

What is checked is the loader of October 2025 (``gemma/model_store.cc``, ``gemma/weights.cc``, ``util/mat.h``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import BadInput
from ...models.gemma_cpp.deduced import deduced_name, layer_number
from ...models.gemma_cpp.reading import Contents, contents, with_shapes
from ...models.gemma_cpp.tensors import MAX_SUFFIX
from ...quant.sbs.container import TOKENIZER
from ...sources.naming import shown
from ...sources.sbs import open_sbs
from ...sources.sentencepiece import read_pieces
from ..finding import Finding
from . import config, tensors, values

_PAGE_BYTES = 4096


def check_sbs(path: Path, scan: bool = True) -> list[Finding]:
    """Everything worth knowing before a file is loaded, errors first.

    Parameters
    ----------
    scan : read all data in search of NaN and infinity

    Errors: InputMissing and NoPermission. A file too damaged to be read gives one finding, not an exception.
    """
    try:
        found = contents(open_sbs(path))
    except BadInput as e:
        return [Finding("error", e.message)]
    findings = [*_keys(found), *_tokenizer(found), *config.check(found)]
    try:
        if found.config is not None or deduced_name(found.sizes):
            shaped = with_shapes(found)
            findings += tensors.check(shaped)
            findings += values.check(shaped) if scan else ()
    except BadInput as e:
        findings.append(Finding("error", e.message))
    return sorted(findings, key=lambda finding: finding.rank)


def _keys(found: Contents) -> Iterator[Finding]:
    """Numbers of keys, and whether the file can be mapped."""
    for key in found.blobs:
        if layer_number(key) >= MAX_SUFFIX:
            yield Finding(
                "error", f"the key {shown(key)} ends in a number of {MAX_SUFFIX} or more, which the loader refuses", key
            )
    size = next(iter(found.blobs.values())).file.size
    if size % _PAGE_BYTES:
        yield Finding("note", f"the file has {size} bytes, no multiple of {_PAGE_BYTES}: it is read, never mapped")


def _tokenizer(found: Contents) -> Iterator[Finding]:
    """The blob of the tokenizer."""
    try:
        data = found.tokenizer()
        if data is not None:
            read_pieces(data, found.path.with_name(f"{found.path.name}, {TOKENIZER}"))
            return
    except BadInput as e:
        yield Finding("error", f"{e.message}: the loader takes a SentencePiece model or 'unavailable'", TOKENIZER)
        return
    yield Finding("warning", "there is no tokenizer in the file: texts need one given with --tokenizer", TOKENIZER)
