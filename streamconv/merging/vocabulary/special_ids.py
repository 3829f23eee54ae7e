"""Ids of tokens that configurations name, for a vocabulary that gives the tokens other ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r"\w*token_(id|ids|index)|begin_suppress_tokens|suppress_tokens")
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def renumbered(config: Mapping[str, Any], before: Mapping[int, str], after: Mapping[str, int]) -> dict[str, Any]:
    """The keys of ``config`` that name tokens by ids which have changed, with the new ids.

    Parameters
    ----------
    before : id -> text in the vocabulary that ``config`` is about
    after : text -> id in the new one

    >>> renumbered({"eos_token_id": [1, 7], "bos_token_id": 0}, {0: "<s>", 1: "</s>"}, {"<s>": 0, "</s>": 2})
    {'eos_token_id': [2, 7]}
    """
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if not _KEY.fullmatch(key):
            continue
        if type(value) is int:
            new: Any = after.get(before.get(value, ""), value)
        elif isinstance(value, list) and all(type(each) is int for each in value):
            new = [after.get(before.get(each, ""), each) for each in value]
        else:
            continue
        if new != value:
            changed[key] = new
    return changed


def ends_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of the tokens that begin, end and fill a text."""
    return {key: config[key] for key in _ENDS if config.get(key) is not None}
