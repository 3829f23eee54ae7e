"""Unigram vocabularies (``t5``): text is normalized, then the tokens with the greatest sum of scores are taken."""

from __future__ import annotations

import sys
from array import array

import numpy as np

from ..errors import BadInput
from .characters import sequence_length
from .prefixes import Prefixes
from .vocabulary import BLANK, NORMAL, PREFIX, UNUSED, USER_DEFINED, Vocabulary, needed

#: how much worse than the worst token an unknown character is
_PENALTY = np.float32(10)
#: what follows from so many bytes is kept, as often as this
_WINDOW, _MOST_KNOWN = 4, 1 << 17


class Unigram:
    """Tokens of a vocabulary with log probabilities."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        texts = [text.encode("utf-8", "surrogatepass") for text in vocabulary.texts]
        kinds, stored = vocabulary.kinds, vocabulary.stored_kinds
        usable = NORMAL | USER_DEFINED | UNUSED
        self._matcher = Prefixes((text, i) for i, text in enumerate(texts) if stored[i] & usable)
        self._scores = [0.0 if k & USER_DEFINED else s for s, k in zip(vocabulary.scores, kinds, strict=True)]
        normal = [s for s, k in zip(vocabulary.scores, stored, strict=True) if k & NORMAL]
        self._unknown_score = float(np.float32(min(normal, default=float(np.finfo(np.float32).max))) - _PENALTY)
        self._unknown = vocabulary.token("unknown", 2)
        self._normalizer = _Normalizer(vocabulary, [t for t, k in zip(texts, stored, strict=True) if k & USER_DEFINED])

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``; unknown characters side by side are one."""
        found = self._normalizer.normalized(text)
        unknown = -1
        starts, tokens = self._forward(found, unknown)
        result: list[int] = []
        at = len(found)
        while at:
            token = tokens[at]
            token = needed(self._unknown, "unknown") if token == unknown else token
            if not (result and token == result[-1] == self._unknown):
                result.append(token)
            at = starts[at]
        return result[::-1]

    def _forward(self, text: bytes, unknown: int) -> tuple[array[int], array[int]]:
        """For every end that tokens come to where the last one starts, and which it is."""
        size = len(text)
        best = array("d", [-sys.float_info.max]) * (size + 1)
        starts, tokens = array("q", [0]) * (size + 1), array("q", [unknown]) * (size + 1)
        best[0] = 0.0
        beginnings, scores = self._matcher.tokens, self._scores
        at = 0
        while at < size:
            first = text[at]
            length = min(1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4, size - at)
            so_far, is_known, end = best[at], False, at + 1
            while end <= size and (beginning := text[at:end]) in beginnings:
                token = beginnings[beginning]
                if token is not None:
                    is_known = is_known or end - at == length
                    total = so_far + scores[token]
                    if total > best[end]:
                        best[end], starts[end], tokens[end] = total, at, token
                end += 1
            if not is_known:
                end, total = at + length, so_far + self._unknown_score
                if total > best[end]:
                    best[end], starts[end], tokens[end] = total, at, unknown
            at += length
        return starts, tokens


class _Normalizer:
    """Replaces what the map of the vocabulary replaces, and blanks by U+2581."""

    def __init__(self, vocabulary: Vocabulary, user_defined: list[bytes]) -> None:
        self._user_defined = Prefixes((text, 0) for text in user_defined)
        self._begins_with_blank = vocabulary.flag("add_space_prefix", False)
        self._drops_blanks = vocabulary.flag("remove_extra_whitespaces", False)
        #: bytes of the text -> what replaces the first characters, and how many bytes these are
        self._known: dict[bytes, tuple[bytes, int]] = {}
        self._map = _CharacterMap(vocabulary.keys.get(f"{PREFIX}precompiled_charsmap"))

    def normalized(self, text: bytes) -> bytes:
        """``text`` as the tokens spell it."""
        result = bytearray()
        has_blank = in_word = False
        for i, run in enumerate(self._replaced(text).split(b" ")):
            if i:
                in_word = False
                if not self._drops_blanks:
                    result += BLANK
            if run:
                if not in_word and ((self._begins_with_blank and not has_blank) or self._drops_blanks):
                    result += BLANK
                    has_blank = True
                in_word = True
                result += run
        return bytes(result)

    def _replaced(self, text: bytes) -> bytes:
        parts, at, known = [], 0, self._known
        while at < len(text):
            found = known.get(text[at : at + _WINDOW])
            if found is None:
                replacement, length, n_seen = self._first(text, at)
                found = replacement, length
                if n_seen <= _WINDOW and len(text) - at >= _WINDOW and len(known) < _MOST_KNOWN:
                    known[text[at : at + _WINDOW]] = found
            replacement, length = found
            parts.append(replacement)
            at += length
        return b"".join(parts)

    def _first(self, text: bytes, at: int) -> tuple[bytes, int, int]:
        """What replaces the first characters at ``at``, how many bytes these are, and how many decide on that."""
        length = self._user_defined.walk(text, at) - at
        if length:  # llama.cpp leaves as it is whatever a user-defined token begins with
            return text[at : at + length], length, length + 1
        replacement, length, n_seen = self._map.longest(text, at)
        if not length:
            length = sequence_length(text, at)
            replacement = text[at : at + length] if length else b"\xef\xbf\xbd"
        return replacement, length or 1, n_seen


class _CharacterMap:
    """A precompiled_charsmap of SentencePiece: a double array over the bytes of what is replaced, then the replacements.

    A unit holds the byte that leads to it (bits 0 to 7), whether something ends here (bit 8), and the distance to the units that
    follow (bits 10 to 30, times 256 with bit 9); one with bit 31 is the place of a replacement.
    """

    def __init__(self, data: object) -> None:
        self._units, self._texts = array("I"), b""
        if data is None:
            return
        packed = data if isinstance(data, bytes) else np.asarray(data).astype(np.uint8).tobytes()
        size = int.from_bytes(packed[:4], "little")
        if len(packed) < 4 or size + 4 >= len(packed):
            raise self._damaged()
        self._units = array("I", np.frombuffer(packed, "<u4", size // 4, 4).tolist())
        self._texts = packed[4 + size :]

    def longest(self, text: bytes, at: int) -> tuple[bytes, int, int]:
        """What replaces the longest sequence at ``at`` that is replaced, its length (0: there is none), and how far was looked."""
        units, place, length, n_seen = self._units, -1, 0, 0
        try:
            node = _distance(units[0]) if units else 0
            for i in range(at, len(text) if units else at):
                byte, n_seen = text[i], i + 1 - at
                node ^= byte
                unit = units[node]
                if not byte or unit & 0x800000FF != byte:
                    break
                node ^= _distance(unit)
                if unit >> 8 & 1:
                    place, length = units[node] & 0x7FFFFFFF, n_seen
            replacement = self._texts[place : self._texts.index(0, place)] if length else b""
        except (IndexError, ValueError):
            raise self._damaged() from None
        return replacement, length, n_seen

    def _damaged(self) -> BadInput:
        return BadInput(f"key {PREFIX}precompiled_charsmap is damaged: it points outside of itself")


def _distance(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
