"""JSON from files that nobody vouches for: what it would take is counted before it is parsed.

A byte of JSON can become 25 bytes of objects, and ten million of them take seconds. Headers and indexes of models are text of
another kind: long names, few brackets. So brackets, commas and colons tell what a text takes; the largest known take half of what
is allowed.
"""

from __future__ import annotations

import json
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
        return json.loads(text, object_pairs_hook=pairs_hook)
    except RecursionError:
        raise NotJson("nests too deep") from None
    except ValueError as e:
        raise NotJson(f"is not valid JSON: {e}") from None


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
