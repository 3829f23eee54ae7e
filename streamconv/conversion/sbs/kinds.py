"""Which type each tensor of a weight file gets and why, and what no loader of gemma.cpp takes.

Source: gemma.cpp ``gemma/tensor_info.cc``, ``gemma/weights.cc`` and ``io/blob_store.cc`` (October 2025).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...errors import BadInput, UsageError
from ...models.gemma_cpp.tensors import BIAS, EMBEDDING, IMAGE_MATRIX, MATRIX, NORM, POSITIONS, Entry
from ...quant.mix_facts import compiled
from ...quant.sbs.types import SBS_TYPES, SbsType

#: kind of tensor -> types that the runtime takes for it
_TAKEN = {
    MATRIX: ("F32", "BF16", "SFP", "NUQ", "I8"),
    EMBEDDING: ("F32", "BF16", "SFP", "NUQ", "I8"),
    IMAGE_MATRIX: ("F32", "BF16", "SFP"),
    NORM: ("F32", "BF16"),
    POSITIONS: ("F32", "BF16"),
    BIAS: ("F32",),
}
_WHY = {
    EMBEDDING: "embeddings are kept in BF16",
    IMAGE_MATRIX: "the runtime has the tower of images in BF16",
    NORM: "norms are kept in BF16",
    POSITIONS: "the runtime reads it as F32",
    BIAS: "the runtime reads biases as F32",
}
#: what a loader reads in one go
_MAX_READ = 0x7FFFF000
#: tensors with fewer rows are read in one go, whatever their type
_FEW_ROWS = 1024
_MAX_ELEMENTS = 1 << 32
#: matrices have a multiple of so many rows
_ROWS = 4
#: pairs of norms that are of one type
_PAIRS = ("enc_norm", "ln_0", "ln_1")


class Decided(NamedTuple):
    """A tensor with its type.

    Attributes
    ----------
    reason : why it has that type
    """

    entry: Entry
    type: SbsType
    reason: str


def decided(entries: Iterable[Entry], type_: str, rules: Sequence[str]) -> list[Decided]:
    """The type of every tensor of a file of type ``type_``.

    Parameters
    ----------
    rules : ``REGEX=TYPE``; the first one whose pattern a key has decides

    Raises
    ------
    UsageError : a rule cannot be read, or asks for what the runtime does not take
    BadInput : a tensor that no file can hold, or no loader reads
    """
    patterns = [(text, *_parsed(text)) for text in rules]
    found = [_of(entry, type_, patterns) for entry in entries]
    for each in found:
        _refuse_too_large(each)
    _refuse_pairs({each.entry.key: each.type.name for each in found})
    return found


def idle_rules(entries: Iterable[Entry], rules: Sequence[str]) -> Iterator[str]:
    """For the plan: rules that no key matches, which are mistyped most of the time."""
    keys = [entry.key for entry in entries]
    for text in rules:
        pattern, _ = _parsed(text)
        if not any(pattern.search(key) for key in keys):
            yield f"--tensor-type {text}: no tensor's name matches, so it has no effect"


def notes(found: Iterable[Decided]) -> Iterator[str]:
    """For the plan: types that not every build of gemma.cpp loads."""
    types = {each.type.name for each in found}
    if "NUQ" in types:
        yield "gemma.cpp loads NUQ only where it was built with GEMMA_ENABLE_NUQ=1"
    if "I8" in types:
        yield "gemma.cpp loads I8 from 15 October 2025 on"


def weight_type(types: Sequence[SbsType]) -> SbsType:
    """The type that the configuration names: of the fewest bits, the first such in the order of the table of contents."""
    return min(types, key=lambda kind: kind.bits)


def _parsed(text: str) -> tuple[re.Pattern[str], SbsType]:
    pattern, sign, name = text.rpartition("=")
    if not sign or not pattern:
        raise UsageError(f'"{text}" is not a tensor type rule', "Write PATTERN=TYPE, for example linear_w=BF16.")
    if name.upper() not in SBS_TYPES:
        raise UsageError(f"--tensor-type {text}: {name!r} is no type of gemma.cpp", f"Known: {', '.join(SBS_TYPES)}.")
    return compiled(pattern.lower()), SBS_TYPES[name.upper()]


def _of(entry: Entry, type_: str, patterns: Sequence[tuple[str, re.Pattern[str], SbsType]]) -> Decided:
    for text, pattern, wanted in patterns:
        if pattern.search(entry.key):
            _refuse_untaken(entry, wanted.name, f"--tensor-type {text}")
            return Decided(entry, wanted, f"--tensor-type {text}")
    if entry.kind == MATRIX:
        _refuse_untaken(entry, type_, f"--type {type_}")
        return Decided(entry, SBS_TYPES[type_], f"requested: {type_}")
    name = "F32" if type_ == "F32" or entry.kind in (BIAS, POSITIONS) else "BF16"
    return Decided(entry, SBS_TYPES[name], f"requested: {type_}" if type_ == "F32" else _WHY[entry.kind])


def _refuse_untaken(entry: Entry, name: str, asked: str) -> None:
    if name not in _TAKEN[entry.kind]:
        raise UsageError(
            f"{asked}: gemma.cpp does not take {entry.key} as {name}", f"Use {' or '.join(_TAKEN[entry.kind])} for it."
        )
    if name == "NUQ" and entry.base == "att_ein":
        raise UsageError(
            f"{asked}: gemma.cpp cannot load {entry.key} as NUQ, since it would have to put it in another order",
            "Use --sbs-layout split, whose tensors it uses as they are.",
        )


def _refuse_too_large(each: Decided) -> None:
    entry, (rows, cols) = each.entry, each.entry.shape
    if rows * cols >= _MAX_ELEMENTS:
        raise BadInput(f"{entry.key} has {rows} x {cols} values, a weight file of gemma.cpp counts with 32 bits")
    n_bytes = each.type.n_bytes(rows * cols)
    if n_bytes > _MAX_READ and (each.type.name in ("F32", "NUQ", "I8") or rows < _FEW_ROWS):
        raise UsageError(
            f"{entry.key} as {each.type.name} has {n_bytes} bytes, loaders of gemma.cpp read {_MAX_READ} at a time",
            f"Write it as BF16: --tensor-type {entry.key}=BF16.",
        )
    if entry.kind in (MATRIX, EMBEDDING, IMAGE_MATRIX) and rows % _ROWS:
        raise BadInput(
            f"{entry.key} has {rows} rows, gemma.cpp multiplies with matrices of a multiple of {_ROWS} only",
            "The runtime would stop when it runs.",
        )


def _refuse_pairs(types: Mapping[str, str]) -> None:
    for key, name in types.items():
        pair = key.replace("_bias", "_scale") if key.startswith(_PAIRS) else key
        if types[pair] != name:
            raise UsageError(
                f"{key} as {name} and {pair} as {types[pair]}: gemma.cpp takes bias and scale of a norm in one type only",
                "Let --tensor-type match both.",
            )
