"""The tokens that are found in a text before anything else: special ones, if asked for, and those a user has defined."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from .vocabulary import CONTROL, STRIPS_LEFT, STRIPS_RIGHT, UNKNOWN, Vocabulary

#: what ``isspace`` of C takes for a blank
_BLANKS = b" \t\n\v\f\r"
_RUN = re.compile(b"[" + _BLANKS + b"]+")
#: how many bytes of a token are looked for first
_HEAD = 6
#: a token, or bytes of the text
Part = int | bytes


class Special:
    """Cuts a text at the tokens of a vocabulary that are matched as they are."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        texts, kinds = vocabulary.texts, vocabulary.kinds
        self._tokens = [(i, texts[i].encode("utf-8", "surrogatepass"), kinds[i]) for i in vocabulary.matched()]
        #: what tokens begin with: vocabularies have thousands of such tokens, of which a text has few
        self._heads = {spelled[:_HEAD] for _, spelled, _ in self._tokens}

    def parts(self, text: bytes, parse_special: bool) -> list[Part]:
        """``text`` as tokens and what is between them, nothing of it empty; control tokens are text unless ``parse_special``.

        Each token takes all its places before the next shorter one is looked for.
        """
        parts: list[Part] = [text] if text else []
        heads = {head for head in self._heads if head in text}
        for token, spelled, kind in self._tokens:
            if spelled[:_HEAD] in heads and spelled in text and (parse_special or not kind & (CONTROL | UNKNOWN)):
                cut = ([part] if isinstance(part, int) else _cut(part, token, spelled, kind) for part in parts)
                parts = list(chain.from_iterable(cut))
        return parts


def _cut(text: bytes, token: int, spelled: bytes, kind: int) -> Iterator[Part]:
    """``text`` with ``token`` in all its places, without the blanks around it that it takes along."""
    at = 0
    while (found := text.find(spelled, at)) >= 0:
        left = text[at:found]
        if kind & STRIPS_LEFT:
            left = left.rstrip(_BLANKS)
        if left:
            yield left
        yield token
        at = found + len(spelled)
        if kind & STRIPS_RIGHT and (blanks := _RUN.match(text, at)):
            at = blanks.end()
    if at < len(text):
        yield text[at:]
