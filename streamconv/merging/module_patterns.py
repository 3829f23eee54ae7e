"""``rank_pattern`` and its like in adapter_config.json: what is said of modules whose path a pattern matches from a dot on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..sources.naming import shown
from ..sources.patterns import NotReadable, Patterns

_NAME = re.compile(r"[\w.-]+")
#: far more than paths of modules have
_MAX_CHARACTERS = 1000


class ModulePatterns:
    """Patterns, of which the first that matches a module counts.

    Nearly all of them are names, of which an adapter for a mixture of experts has ten thousands; those are looked up.

    Parameters
    ----------
    texts : the patterns, in order
    modules : paths of all modules that will be asked for
    engine : matches the others
    """

    def __init__(self, texts: Iterable[str], modules: Iterable[str], engine: Patterns) -> None:
        self._engine = engine
        self._named: dict[str, tuple[int, str]] = {}
        self._others: list[tuple[int, str]] = []
        endings = {ending for module in modules for ending in _endings(module)}
        for at, text in enumerate(texts):
            name = text.replace(r"\.", ".")
            if name in endings and _NAME.fullmatch(name):
                self._named.setdefault(name, (at, text))
            else:
                self._others.append((at, text))

    def first(self, module: str) -> str | None:
        """The first pattern that matches ``module``; None when there is none.

        Raises
        ------
        NotReadable : a pattern is invalid, or is refused; names it
        """
        named = [self._named[ending] for ending in _endings(module) if ending in self._named]
        place, found = min(named, default=(-1, None))
        for at, text in self._others:
            if found is not None and at > place:
                break
            try:
                if self._engine.match(rf"(?:.*\.)?(?:{text})$", module):
                    return text
            except NotReadable as e:
                raise NotReadable(f"the pattern {shown(text)} {e}") from None
        return found


def _endings(module: str) -> Iterator[str]:
    """The path and what is left of it behind each of its dots."""
    at = 0
    while 0 < len(module) <= _MAX_CHARACTERS:
        yield module[at:]
        at = module.find(".", at) + 1
        if not at:
            return
