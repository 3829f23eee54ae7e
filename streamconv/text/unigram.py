"""Unigram vocabularies (``t5``): text is normalized, then the tokens with the greatest sum of scores are taken."""

from __future__ import annotations

import sys
from array import array

import numpy as np

from ..errors import BadInput
from .characters import sequence_length
from .prefixes import Prefixes
from .vocabulary import NORMAL, PREFIX, UNUSED, USER_DEFINED, Vocabulary, needed

#: how much worse than the worst token an unknown character is
_PENALTY = np.float32(10)
_BLANK = "\u2581".encode()


class Unigram:
    """Tokens of a vocabulary with log probabilities."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        texts = [text.encode("utf-8", "surrogatepass") for text in vocabulary.texts]
        kinds, stored = vocabulary.kinds, vocabulary.stored_kinds
        usable = NORMAL | USER_DEFINED | UNUSED
        self._matcher = Prefixes((text, i) for i, text in enumerate(texts) if stored[i] & usable)
        self._scores = [0.0 if k & USER_DEFINED else s for s, k in zip(vocabulary.scores, kinds, strict=False)]
        normal = [s for s, k in zip(vocabulary.scores, stored, strict=False) if k & NORMAL]
        self._unknown_score = float(np.float32(min(normal, default=sys.float_info.max)) - _PENALTY)
        self._unknown = vocabulary.token("unknown", 2)
        self._normalizer = _Normalizer(vocabulary, [t for t, k in zip(texts, stored, strict=True) if k & USER_DEFINED])

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``; unknown characters side by side are one."""
        found = self._normalizer.normalized(text)
        unknown = -1
        best, starts, tokens = self._forward(found, unknown)
        del best
        result: list[int] = []
        at = len(found)
        while at:
            token = tokens[at]
            token = needed(self._unknown, "unknown") if token == unknown else token
            if not (result and token == result[-1] == self._unknown):
                result.append(token)
            at = starts[at]
        return result[::-1]

    def _forward(self, text: bytes, unknown: int) -> tuple[list[float], list[int], list[int]]:
        """For every end the greatest sum up to it, where its last token starts, and which it is."""
        size = len(text)
        best, starts, tokens = [-sys.float_info.max] * (size + 1), [0] * (size + 1), [unknown] * (size + 1)
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
        return best, starts, tokens


class _Normalizer:
    """Replaces what the map of the vocabulary replaces, and blanks by U+2581."""

    def __init__(self, vocabulary: Vocabulary, user_defined: list[bytes]) -> None:
        self._user_defined = Prefixes((text, 0) for text in user_defined)
        self._begins_with_blank = vocabulary.flag("add_space_prefix", False)
        self._drops_blanks = vocabulary.flag("remove_extra_whitespaces", False)
        self._map = _CharacterMap(vocabulary.keys.get(f"{PREFIX}precompiled_charsmap"))

    def normalized(self, text: bytes) -> bytes:
        """``text`` as the tokens spell it."""
        result = bytearray()
        has_blank = in_word = False
        for part in self._replaced(text):
            for i, run in enumerate(part.split(b" ")):
                if i:
                    in_word = False
                    if not self._drops_blanks:
                        result += _BLANK
                if run:
                    if not in_word and ((self._begins_with_blank and not has_blank) or self._drops_blanks):
                        result += _BLANK
                        has_blank = True
                    in_word = True
                    result += run
        return bytes(result)

    def _replaced(self, text: bytes) -> list[bytes]:
        parts, at = [], 0
        while at < len(text):
            end = self._user_defined.walk(text, at)
            if end > at:  # llama.cpp leaves as it is whatever a user-defined token begins with
                parts.append(text[at:end])
                at = end
                continue
            replacement, end = self._map.longest(text, at)
            if end == at:
                length = sequence_length(text, at)
                end = at + (length or 1)
                replacement = text[at:end] if length else b"\xef\xbf\xbd"
            parts.append(replacement)
            at = end
        return parts


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

    def longest(self, text: bytes, at: int) -> tuple[bytes, int]:
        """What replaces the longest sequence at ``at`` that is replaced, and its end, which is ``at`` where nothing is."""
        units = self._units
        if not units:
            return b"", at
        place, stop = -1, at
        try:
            node = _distance(units[0])
            for i in range(at, len(text)):
                byte = text[i]
                node ^= byte
                unit = units[node]
                if not byte or unit & 0x800000FF != byte:
                    break
                node ^= _distance(unit)
                if unit >> 8 & 1:
                    place, stop = units[node] & 0x7FFFFFFF, i + 1
            return (self._texts[place : self._texts.index(0, place)], stop) if place >= 0 else (b"", at)
        except (IndexError, ValueError):
            raise self._damaged() from None

    def _damaged(self) -> BadInput:
        return BadInput(f"key {PREFIX}precompiled_charsmap is damaged: it points outside of itself")


def _distance(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
