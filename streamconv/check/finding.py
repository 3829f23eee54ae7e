"""One thing worth telling about a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
Kind = Literal["other", "missing", "shape", "unknown", "marker", "alone"]

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """What a loader will make of something in the file.

    Attributes
    ----------
    severity : ``error``: it will refuse the file, or compute NaN from it; ``warning``: it loads and is likely to behave
        wrongly; ``note``: a default or a choice that is good to know
    message : one sentence
    where : the tensor or key it is about, empty for the file
    kind : ``missing``: ``where`` is not there; ``shape``: it has another shape than the loader wants; ``unknown``: the
        architecture is in no table; ``marker``: the chat template spells tokens that a loader will not find; ``alone``: a draft
        model lacks what it has from the model that it helps
    others : tensors of other layers of which the same is to be said
    shapes : of the tensor, and what the loader wants, slowest dimension first, None for what it does not say
    """

    severity: Severity
    message: str
    where: str = ""
    kind: Kind = "other"
    others: tuple[str, ...] = ()
    shapes: tuple[tuple[int | None, ...], ...] = ()

    @property
    def rank(self) -> int:
        """Errors first."""
        return _ORDER[self.severity]
