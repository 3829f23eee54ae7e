"""What a user says of a model in a file of their own: ``general.…`` keys that win over all that its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..sources.checkpoint import read_object
from ..sources.naming import shown_list
from .general import CARD_LISTS, CARD_ORIGINS, CARD_TEXT, SAMPLING

_ORIGINS = {f"general.{key}s" for key in CARD_ORIGINS}
_LISTS = {f"general.{key}" for key in CARD_LISTS}
_TEXTS = {f"general.{key}" for key in CARD_TEXT}
_KNOWN = {*_ORIGINS, *_LISTS, *_TEXTS, *(f"general.sampling.{key}" for key in SAMPLING)}


def read_overrides(path: Path | None, warnings: list[str]) -> dict[str, Any]:
    """Key -> value of the JSON object in the file ``path``; null leaves a key out.

    Parameters
    ----------
    warnings : gets the keys that say nothing of a model

    Raises
    ------
    InputMissing, NoPermission, BadInput : it is not there, no JSON object, or a value is of the wrong type
    """
    if path is None:
        return {}
    said = read_object(path)
    for key, value in said.items():
        if value is not None and not _fits(key, value):
            kind = "a list of objects" if key in _ORIGINS else "a list of texts" if key in _LISTS else "a text"
            raise BadInput(f"{path}: {key} is not {kind}", f"Write {kind} there, or null to leave the key out.")
    if others := sorted(said.keys() - _KNOWN):
        warnings.append(f"{path}: {shown_list(others)} is not a key that --metadata sets, so it has no effect")
    return {key: value for key, value in said.items() if key in _KNOWN}


def _fits(key: str, value: Any) -> bool:
    if key in _ORIGINS:
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if key in _LISTS:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return key not in _TEXTS or (isinstance(value, (str, int, float)) and not isinstance(value, bool))
