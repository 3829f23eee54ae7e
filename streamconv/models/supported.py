"""What is supported, from the code itself: every architecture that a model may be of, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import UsageError
from ..found import Found
from .families import FAMILIES
from .family import Family
from .multimodal import OUTER, UNNAMED
from .projectors import PROJECTORS

#: readers of a vocabulary that several families share, as people call what they read; others are called as here
_READERS = {"bpe": "byte-level BPE", "spm": "SentencePiece", "wordpiece": "WordPiece", "t5": "Unigram"}


class Supported(NamedTuple):
    """One architecture of Hugging Face.

    Attributes
    ----------
    architecture : as config.json names it
    gguf : as GGUF calls it; "" where the text model inside decides
    kind : ``text``, or ``projector`` for what ``--mmproj`` writes
    tokenizers : the vocabularies that are read, by kind or by the file; none for a projector
    file : where it is described: a file of this package, or an object of another
    """

    architecture: str
    gguf: str
    kind: str
    tokenizers: tuple[str, ...]
    file: str


def supported() -> list[Supported]:
    """All architectures, sorted; those of packages that cannot be imported are passed over."""
    inside = [Supported(name, "", "text", (), "models/multimodal.py") for name in (*OUTER, *UNNAMED)]
    return sorted([*_of(FAMILIES, "text"), *_of(PROJECTORS, "projector"), *inside])


def _of(found: Found[Family], kind: str) -> Iterator[Supported]:
    for name in found:
        try:
            family = found[name]
        except UsageError:
            continue
        rule = family.tokenizer
        kinds = () if rule is None else rule.kinds
        readers = tuple(rule.own[k][0] if rule is not None and k in rule.own else _READERS.get(k, k) for k in kinds)
        yield Supported(name, family.arch, kind, readers, found.home(name))
