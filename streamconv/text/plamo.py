"""Vocabularies of PLaMo 2: the tokens with the greatest sum of scores, taken from the end of the text."""

from __future__ import annotations

import math

from ..errors import BadInput
from .characters import decoded
from .vocabulary import BYTE, Vocabulary, byte_tokens

#: scores are ten thousandths; what a character costs that is spelled in bytes, and from where on a token is not used at all
_UNKNOWN, _TOO_LOW = -10_000_000, -20_000_000


class Plamo:
    """Tokens of a vocabulary with scores and all bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = byte_tokens({text: i for text, i in vocabulary.ids.items() if vocabulary.stored_kinds[i] & BYTE})
        #: 0 stands for a token that is missing
        self._bytes = [token for token in tokens if token]
        if len(self._bytes) < 256:
            raise BadInput(
                f"the vocabulary of PLaMo 2 has only {len(self._bytes)} tokens of bytes", "Convert the model again."
            )
        self._scores: dict[str, int] = {}
        self._beginnings: set[str] = set()
        self._ids = vocabulary.ids
        for i, text in enumerate(vocabulary.texts):
            score = vocabulary.scores[i] * 1e4
            if vocabulary.stored_kinds[i] & BYTE or not math.isfinite(score):
                continue
            rounded = int(math.copysign(math.floor(abs(score) + 0.5), score))
            if rounded > _TOO_LOW:
                self._scores[text] = rounded
                self._beginnings.update(text[:end] for end in range(1, len(text) + 1))

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``; what says in which order its bytes are is left out."""
        found = decoded(text).removeprefix("\ufeff")
        lengths = self._backward(found)
        tokens: list[int] = []
        at = 0
        while at < len(found):
            end = at + abs(lengths[at])
            if lengths[at] > 0:
                tokens.append(self._ids[found[at:end]])
            else:
                tokens += [self._bytes[byte] for byte in found[at].encode("utf-8", "surrogatepass")]
            at = end
        return tokens

    def _backward(self, text: str) -> list[int]:
        """For every place the length of the token that is best there, the longer one of equals; -1 for bytes."""
        size = len(text)
        costs, lengths = [0] * (size + 1), [-1] * size
        scores, beginnings = self._scores, self._beginnings
        for at in range(size - 1, -1, -1):
            cost = costs[at + 1] - _UNKNOWN
            end = at + 1
            while end <= size and (piece := text[at:end]) in beginnings:
                score = scores.get(piece)
                if score is not None and costs[end] - score <= cost:
                    cost, lengths[at] = costs[end] - score, end - at
                end += 1
            costs[at] = cost
        return lengths
