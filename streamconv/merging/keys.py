"""Checks of mappings in recipes that every reader of one needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from ..errors import BadInput, InputMissing, NetworkError, UsageError


def nearest(word: str, known: Collection[str]) -> str:
    """A sentence that names the known word most like ``word``, or all of them.

    >>> nearest("dare-ties", ["ties", "dare_ties"]), nearest("xyz", ["b", "a"])
    ("Did you mean 'dare_ties'?", 'Known: a, b.')
    """
    found = get_close_matches(word, list(known), 1)
    return f"Did you mean {found[0]!r}?" if found else f"Known: {', '.join(sorted(known))}."


def check_keys(
    value: Mapping[Any, Any], known: Collection[str], where: str, lenient: bool, warnings: list[str]
) -> None:
    """Refuse keys of ``value`` that are not ``known``.

    Parameters
    ----------
    where : place in the recipe, for messages
    lenient : unknown keys are only added to ``warnings``
    """
    for key in value:
        if key in known:
            continue
        message = f"{where}: unknown key {key!r}"
        if not lenient:
            raise BadInput(message, f"{nearest(str(key), known)} --lenient ignores unknown keys.")
        warnings.append(f"{message} is ignored. {nearest(str(key), known)}")


@contextmanager
def naming(recipe: str, place: str = "") -> Iterator[None]:
    """Errors of inputs in here say that they were met in ``recipe``, at ``place`` of it, if they do not say where already."""
    try:
        yield
    except (BadInput, InputMissing, NetworkError, UsageError) as e:
        if e.message.startswith(f"{recipe}: "):
            raise
        raise type(e)(f"{recipe}{place}: {e.message}", e.hint) from None


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` as a mapping with text keys; None counts as empty. BadInput for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise BadInput(
            f"{where}: expected a mapping with text keys, found {type(value).__name__}",
            "Write it as lines NAME: VALUE, or as {NAME: VALUE, ...}.",
        )
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """``value`` as a list with at least one entry. BadInput for anything else."""
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: expected a list with at least one entry", "Write it as lines that begin with '- '.")
    return value
