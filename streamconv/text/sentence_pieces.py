"""SentencePiece vocabularies (``llama``): characters are merged by the scores of what they make, bytes stand for the rest."""

from __future__ import annotations

from ..errors import BadInput
from .characters import raw_bytes, with_raw_bytes
from .kind import Words
from .merging import Seams, merged
from .vocabulary import BLANK, Vocabulary, byte_tokens


class SentencePieces:
    """Tokens of a vocabulary with scores."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._has_prefix = vocabulary.flag("add_space_prefix", True)
        #: text -> rank, the better the lower
        self._ranks = dict(zip(vocabulary.texts, (-score for score in vocabulary.scores), strict=True))
        self._bytes = byte_tokens(vocabulary.ids)
        self._words = Words(self._merge)
        self._seams = Seams(vocabulary.texts)

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``, with a blank before it at the beginning or behind a special token, if the vocabulary wants one."""
        # Blanks are escaped first: the bytes of U+2581 can complete a sequence that was cut off.
        spaced = (b" " + text if self._has_prefix and follows_token else text).replace(b" ", BLANK)
        tokens: list[int] = []
        words = self._words
        for part in self._seams.parts(with_raw_bytes(spaced)):
            tokens += words[part]
        return tokens

    def _merge(self, part: str) -> list[int]:
        tokens = []
        for symbol in merged(part, lambda left, right: self._ranks.get(left + right)):
            token = self._ids.get(symbol)
            tokens += [token] if token is not None else [self._byte(byte) for byte in raw_bytes(symbol)]
        return tokens

    def _byte(self, byte: int) -> int:
        token = self._bytes[byte]
        if token is None:
            token = self._ids.get(chr(byte)) if byte < 0x80 else None
        if token is None:
            raise BadInput(
                f"the vocabulary has no token <0x{byte:02X}>, which this text needs",
                "A SentencePiece vocabulary without tokens for bytes cannot write every text; llama.cpp ends its process there.",
            )
        return token
