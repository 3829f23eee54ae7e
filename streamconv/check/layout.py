"""How the tensors lie in the file, and what every loader wants of any GGUF file."""

from __future__ import annotations

from collections.abc import Iterator

from ..sources import GgufFile
from ..sources.naming import shown
from .finding import Finding
from .subject import Subject

#: GGML_MAX_NAME, the closing zero included
_MAX_NAME_BYTES = 64


def check(subject: Subject) -> Iterator[Finding]:
    """Names, offsets and the architecture; sizes and overlaps were checked on reading."""
    yield from _keys(subject)
    yield from _names(subject)
    for file in subject.files:
        yield from _not_utf8(file)
        yield from _offsets(file)
    yield from _architecture(subject)


def _keys(subject: Subject) -> Iterator[Finding]:
    if "" in subject.metadata:
        yield Finding("error", "a metadata key is empty: loaders refuse the file or abort the process")


def _not_utf8(file: GgufFile) -> Iterator[Finding]:
    if found := file.header.not_utf8:
        more = f" ({len(found)} such strings)" if found[1:] else ""
        yield Finding("warning", f"{found[0]} is not UTF-8{more}: llama.cpp accepts it, programs that decode it fail")


def _names(subject: Subject) -> Iterator[Finding]:
    for name in subject.tensors:
        if len(name.encode()) >= _MAX_NAME_BYTES:
            message = f"tensor name {shown(name)} has {len(name.encode())} bytes, the loader accepts at most {_MAX_NAME_BYTES - 1}"
            yield Finding("error" if subject.is_known else "warning", message, name)


def _offsets(file: GgufFile) -> Iterator[Finding]:
    """ggml wants each tensor right behind the one before, padded to the alignment, in the order of the infos."""
    expected = 0
    for name, info in file.tensors.items():
        if info.offset != expected:
            message = f"{shown(name)} is at data offset {info.offset}, the loader expects {expected}: it refuses gaps"
            yield Finding("error", message, name)
            return
        expected += -(-info.n_bytes // file.header.alignment) * file.header.alignment


def _architecture(subject: Subject) -> Iterator[Finding]:
    key = "general.architecture"
    if not subject.arch:
        yield Finding("error", f"{key} is missing or not a string: no loader can tell the architecture", key)
    elif not subject.tensors:
        yield Finding("note", "the file holds no tensors: it can be loaded for its vocabulary only")
    elif not subject.is_text_model:
        kind = subject.metadata.get("general.type", "model")
        yield Finding(
            "note", f"{subject.arch} ({kind}) is not a text model; only the file's structure was checked", key
        )
    elif subject.known is None:
        message = f"architecture {shown(subject.arch)} is not one that check knows; tensors and keys were not checked"
        yield Finding("note", message, key, "unknown")
