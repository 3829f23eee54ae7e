"""Vocabularies of RWKV: always the longest token."""

from __future__ import annotations

import re

from ..errors import BadInput
from .prefixes import Prefixes
from .vocabulary import Vocabulary, needed

_ESCAPE = re.compile(rb"\\x(..)|\\(.)", re.DOTALL)
_ESCAPED = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


class LongestMatch:
    """Tokens of a vocabulary whose texts are written with ``\\n``, ``\\x00`` and so on."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._matcher = Prefixes((_unescaped(text.encode()), i) for i, text in enumerate(vocabulary.texts))
        self._unknown = vocabulary.token("unknown")

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``."""
        tokens: list[int] = []
        known, at = self._matcher.tokens, 0
        while at < len(text):
            end = self._matcher.walk(text, at)
            if end == at:
                tokens.append(needed(self._unknown, "unknown"))
                at += 1
                continue
            while (token := known.get(text[at:end])) is None:
                end -= 1
                if end == at:
                    raise BadInput(
                        f"the vocabulary has no token for the byte 0x{text[at]:02X}, with which longer tokens begin",
                        "llama.cpp never comes to an end with such a vocabulary.",
                    )
            tokens.append(token)
            at = end
        return tokens


def _unescaped(text: bytes) -> bytes:
    def replaced(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return _ESCAPED.get(found[2], found[2])
        return bytes([sum(_digit(c) << shift for c, shift in zip(found[1], (4, 0), strict=True)) & 0xFF])

    return _ESCAPE.sub(replaced, text)


def _digit(code: int) -> int:
    return code - ord("a") + 10 if code >= ord("a") else code - ord("0")
