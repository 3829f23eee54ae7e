"""Regular expressions from files (config.json, adapter_config.json), which say what modules they are about.

Python's own engine tries one way after the other, and a pattern can be written for which it never ends. The ``regex`` package reads
the same patterns and ends when its time is over. What it has beyond Python's (recursion, fuzzy matching) is refused, and so are
patterns that would take it much memory.
"""

from __future__ import annotations

import re
import time
from typing import Any

#: far more than patterns of models have
_MAX_CHARACTERS, _MAX_REPEATS, _MAX_NAME = 1000, 1000, 1 << 16
#: of all patterns on all names of a checkpoint; 18 000 modules against a pattern for each of 48 layers take half of it
_MAX_SECONDS = 4.0
#: groups as Python's engine has them
_GROUP = re.compile(r"\(\?(?!:|[=!]|<[=!]|P<\w|P=\w|#|[aiLmsux-]+[:)])")
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")
_ESCAPED_OR_BRACE = re.compile(r"\\.|\{(?!\d*,?\d*\})", re.DOTALL)


class NotReadable(ValueError):
    """A pattern that is invalid, or that uses what is not supported, or too costly."""


class Patterns:
    """The patterns of one checkpoint; the time that all of them together take is limited."""

    def __init__(self) -> None:
        self._seconds = _MAX_SECONDS
        self._read: dict[str, Any] = {}

    def match(self, pattern: str, name: str) -> bool:
        """Whether ``name`` begins with what ``pattern`` describes, as ``re.match`` says.

        Raises
        ------
        NotReadable : the pattern is invalid, or is refused
        """
        began = time.process_time()
        if self._seconds <= 0 or len(name) > _MAX_NAME:
            raise NotReadable("takes too long")
        try:
            compiled = self._read.get(pattern)
            if compiled is None:
                compiled = self._read[pattern] = _compiled(pattern)
            return compiled.match(name, timeout=self._seconds) is not None
        except TimeoutError:
            raise NotReadable("takes too long") from None
        finally:
            self._seconds -= time.process_time() - began


def _compiled(pattern: str) -> Any:
    """The pattern as the ``regex`` package has it."""
    import regex

    if len(pattern) > _MAX_CHARACTERS:
        raise NotReadable(f"is {len(pattern)} characters long, {_MAX_CHARACTERS} are the limit")
    repeats = 1
    for low, high in _COUNT.findall(pattern):
        repeats *= max(int(low or 1), int(high or 1), 1)
    if repeats > _MAX_REPEATS:
        raise NotReadable(f"repeats its parts {repeats} times, {_MAX_REPEATS} are the limit")
    if _GROUP.search(pattern):
        raise NotReadable("has a kind of group that Python's regular expressions do not have")
    # A brace that is no count stands for itself in Python, and is a fuzzy match in this package.
    text = _ESCAPED_OR_BRACE.sub(lambda m: m[0] if m[0].startswith("\\") else r"\{", pattern)
    try:
        return regex.compile(text, regex.VERSION0)
    except (regex.error, RecursionError, OverflowError, ValueError) as e:
        raise NotReadable(f"cannot be read: {e}") from None
