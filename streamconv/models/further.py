"""Blocks that predict further tokens, which runtimes draft with: with the others, alone with what they share, or left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..errors import BadInput, UsageError
from .config import Config
from .family import Family
from .names import stem_of

_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
#: what these blocks use with the others, as GGUF calls it
_SHARED = ("token_embd", "output_norm", "output")
_OPTIONS = {"only": "--mtp", "left out": "--no-mtp"}


def without_effect(family: Family, config: Config) -> Iterator[str]:
    """What to tell of an option that leaves all as it is.

    Raises
    ------
    UsageError : the option has no effect on the family
    BadInput : only such blocks are to be written, and there are none
    """
    if config.further == "kept":
        return
    option = _OPTIONS[config.further]
    if family.further is None:
        raise UsageError(
            f"{option} has no effect on {family.arch!r}: blocks that predict further tokens are not written apart from others",
            "Leave it out.",
        )
    if family.further(config):
        return
    where = config.checkpoint.path if config.checkpoint is not None else "the checkpoint"
    if config.further == "only":
        raise BadInput(f"{where} has no blocks that predict further tokens", f"Leave {option} out.")
    yield f"{option} has no effect: {where} has no blocks that predict further tokens"


def written(family: Family, config: Config) -> Callable[[str], str | None]:
    """Why an option leaves out a tensor, by its name as rules spell it; None where none does."""
    if config.further == "kept" or family.further is None:
        return lambda _name: None
    first = family.further(config).start

    def why_not(name: str) -> str | None:
        block = _BLOCK.search(name)
        is_further = block is not None and int(block[1]) >= first
        if config.further == "left out":
            return "--no-mtp leaves out what predicts further tokens" if is_further else None
        found = None if block else family.tensor_names.renamed(name)
        if is_further or (found and stem_of(found[0]) in _SHARED):
            return None
        return "--mtp writes what predicts further tokens, and what that shares with other blocks"

    return why_not
