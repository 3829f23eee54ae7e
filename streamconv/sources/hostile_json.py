"""JSON from untrusted files: what it would take is counted before it is parsed.

A byte of JSON can become 25 bytes of objects, and ten million of them take seconds. Headers and indexes of models are text of
another kind: long names, few brackets. So brackets, commas and colons tell what a text takes; the largest known take half of what
is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

#: the index of a mixture of 384 experts in 60 layers, in four bits with scales and shapes (207 000 names), has 26 MB
MAX_JSON_BYTES = 48 << 20
_MAX_MEMORY_BYTES = 160 << 20
#: tokenizers are larger: one of 262 000 tokens has 33 MB, many of them letters of four bytes
MAX_TOKENIZER_BYTES = 128 << 20
_MAX_TOKENIZER_MEMORY_BYTES = 768 << 20
#: bytes that an object, an array, another value and a named value take, each with its share of the container it is in
_COSTS = {"{": 128, "[": 72, ",": 48, ":": 150}
#: configurations nest six deep; code that walks through a value is recursive
_MAX_DEPTH = 100
_MAX_DIGITS = 300
_LONG = re.compile(rf"[0-9]{{{_MAX_DIGITS}}}")


class NotJson(ValueError):
    """What is wrong with a text, as the end of a sentence about it: "is not valid JSON"."""


def parse_json(
    data: bytes | memoryview,
    pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    of_tokenizer: bool = False,
) -> Any:
    """The value that ``data`` describes in UTF-8; ``pairs_hook`` as in ``json``; more is allowed if it is ``of_tokenizer``.

    Raises
    ------
    NotJson : it is not JSON, or would take more time and memory than a file of a model does
    """
    most = MAX_TOKENIZER_BYTES if of_tokenizer else MAX_JSON_BYTES
    if len(data) > most:
        raise NotJson(f"has {len(data)} bytes, over the limit of {most}")
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as e:
        raise NotJson(f"is not UTF-8 at byte {e.start}") from None
    # The text is there once as it is and once in strings, with four bytes a character if one of them needs as many.
    needed = len(text) * (2 if text.isascii() else 8) + sum(text.count(c) * cost for c, cost in _COSTS.items())
    if needed > (_MAX_TOKENIZER_MEMORY_BYTES if of_tokenizer else _MAX_MEMORY_BYTES):
        raise NotJson(f"describes more than any model needs: {needed >> 20} MiB of objects")
    try:
        value = json.loads(
            text, object_pairs_hook=pairs_hook, parse_int=_whole_number if _has_long_number(text) else None
        )
    except RecursionError:
        raise NotJson("nests too deep") from None
    except NotJson:
        raise
    except ValueError as e:
        raise NotJson(f"is not valid JSON: {e}") from None
    if text.count("{") + text.count("[") > _MAX_DEPTH and _nests_deeper(value, _MAX_DEPTH):
        raise NotJson("nests too deep")
    return value


def _has_long_number(text: str) -> bool:
    """Whether there are so many digits in a row that they may be too many; only every so many characters need a look."""
    step = _MAX_DIGITS
    places = (i * step for i, c in enumerate(text[::step]) if c in "0123456789")
    return any(_LONG.search(text, max(0, at - step), at + step + 1) for at in places)


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # more than fit into a float
        raise NotJson(f"has a number of {len(digits)} digits")
    return int(digits)


def _nests_deeper(value: Any, depth: int) -> bool:
    """Whether containers in ``value`` lie deeper than ``depth``."""
    level = [value]
    for _ in range(depth):
        parts = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [each for part in parts for each in part if isinstance(each, (dict, list))]
        if not level:
            return False
    return True


def texts(value: Any) -> Iterator[str]:
    """All strings in a value, names of members included."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            left.extend(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
