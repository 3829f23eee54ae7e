"""The file types of ``llama-quantize``: what ``--type`` accepts and what ``general.file_type`` holds.

A file type names a recipe for a whole model (``Q4_K_M``), a tensor type one encoding (``Q4_K``). Which tensor gets which
type is decided in ``mix.py``.

Source: llama.h ``enum llama_ftype`` and the option table of ``llama-quantize`` (ggml 0.25.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import UsageError
from .types import TYPES, TensorType

#: set in ``general.file_type`` when the number was inferred from the tensors
GUESSED = 1024


@dataclass(frozen=True)
class FileType:
    """One recipe for a whole file.

    Attributes
    ----------
    name : spelling of ``llama-quantize``
    number : value of ``general.file_type``; None for ``COPY`` and ``auto``, whose files declare another type's number
    default : tensor type that most matrices get; None for ``COPY`` and ``auto``
    aliases : other accepted names
    selectable : whether ``--type`` may name it; the others are met in files only
    """

    name: str
    number: int | None
    default: TensorType | None
    aliases: tuple[str, ...] = ()
    selectable: bool = True


def _row(name: str, number: int, default: str = "", *aliases: str, selectable: bool = True) -> FileType:
    return FileType(name, number, TYPES[default or name], aliases, selectable)


COPY = FileType("COPY", None, None)
AUTO = FileType("auto", None, None)

_TABLE = [
    _row("F32", 0),
    _row("F16", 1),
    _row("Q4_0", 2),
    _row("Q4_1", 3),
    _row("Q8_0", 7),
    _row("Q5_0", 8),
    _row("Q5_1", 9),
    _row("Q2_K", 10),
    _row("Q3_K_S", 11, "Q3_K"),
    _row("Q3_K_M", 12, "Q3_K", "Q3_K"),
    _row("Q3_K_L", 13, "Q3_K"),
    _row("Q4_K_S", 14, "Q4_K"),
    _row("Q4_K_M", 15, "Q4_K", "Q4_K"),
    _row("Q5_K_S", 16, "Q5_K"),
    _row("Q5_K_M", 17, "Q5_K", "Q5_K"),
    _row("Q6_K", 18),
    _row("IQ2_XXS", 19),
    _row("IQ2_XS", 20),
    _row("Q2_K_S", 21, "Q2_K"),
    _row("IQ3_XS", 22, "IQ3_S"),
    _row("IQ3_XXS", 23),
    _row("IQ1_S", 24),
    _row("IQ4_NL", 25),
    _row("IQ3_S", 26),
    _row("IQ3_M", 27, "IQ3_S"),
    _row("IQ2_S", 28, "IQ2_XS"),
    _row("IQ2_M", 29, "IQ2_S"),
    _row("IQ4_XS", 30),
    _row("IQ1_M", 31),
    _row("BF16", 32),
    _row("TQ1_0", 36),
    _row("TQ2_0", 37),
    _row("MXFP4_MOE", 38, "MXFP4"),
    _row("NVFP4", 39, selectable=False),
    _row("Q1_0", 40),
    _row("Q2_0", 41),
]

#: by the number stored in files
BY_NUMBER: dict[int, FileType] = {t.number: t for t in _TABLE if t.number is not None}
#: by every name ``--type`` accepts, upper case
FILE_TYPES: dict[str, FileType] = {
    name.upper(): t for t in [*_TABLE, COPY, AUTO] if t.selectable for name in (t.name, *t.aliases)
}
#: types with a quantizer, by upper-case name: what ``--tensor-type`` and its relatives accept
TARGET_TYPES: dict[str, TensorType] = {name: t for name, t in TYPES.items() if t.module}

#: what a file of mostly this tensor type is called when it does not say so itself
_GUESSES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}


def parse_file_type(text: str) -> FileType:
    """The file type that ``text`` names: a name or alias in any case, or a ``general.file_type`` number.

    Raises
    ------
    UsageError : there is no such file type; the hint lists near names

    >>> parse_file_type("q4_k").name, parse_file_type("15").name, parse_file_type("copy") is COPY
    ('Q4_K_M', 'Q4_K_M', True)
    """
    word = text.strip()
    if word.isascii() and word.isdigit():
        found = BY_NUMBER.get(int(word[:9]))
        if found and found.selectable:
            return found
        known = ", ".join(f"{t.number} {t.name}" for t in _TABLE if t.selectable)
        raise UsageError(f"there is no file type number {word}", f"numbers are {known}")
    try:
        return FILE_TYPES[word.upper()]
    except KeyError:
        raise UsageError(f'unknown file type "{text}"', _suggestion(word, FILE_TYPES)) from None


def parse_tensor_type(text: str) -> TensorType:
    """The tensor type that ``text`` names in any case; it must be one that weights can be converted to.

    Raises
    ------
    UsageError : there is no such type, or nothing can be quantized to it; the hint lists near names
    """
    word = text.strip()
    try:
        return TARGET_TYPES[word.upper()]
    except KeyError:
        pass
    if word.upper() in FILE_TYPES:
        raise UsageError(f'"{text}" is a file type, here a tensor type is needed', _suggestion(word, TARGET_TYPES))
    raise UsageError(f'unknown tensor type "{text}"', _suggestion(word, TARGET_TYPES))


def _suggestion(word: str, known: Iterable[str]) -> str:
    """A hint with the names nearest to ``word``, or with all of them when none is near."""
    names = list(known)
    near = get_close_matches(word.upper(), names, n=4, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"known types are {', '.join(names)}"


def guess_file_type(types: Iterable[str]) -> int:
    """``general.file_type`` of a file that does not declare one: that of its most frequent tensor type, marked as guessed.

    Parameters
    ----------
    types : tensor type names in traversal order; of two equally frequent types the one that reached the count first wins
    """
    counts: Counter[str] = Counter()
    winner = "F32"
    for name in types:
        counts[name] += 1
        if counts[name] > counts[winner]:
            winner = name
    names = {t.name: t.number for t in _TABLE}
    number = names.get(_GUESSES.get(winner, winner))
    return (number or 0) | GUESSED
