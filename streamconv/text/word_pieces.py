"""WordPiece vocabularies (``bert``): words and signs, each made of the longest tokens from left to right, or unknown."""

from __future__ import annotations

from .characters import WHITESPACE, base, decoded, kind, lower
from .kind import Words
from .vocabulary import Vocabulary, needed

#: Chinese characters, each a word of its own; 0x2B820 to 0x2B91F are not, as in Hugging Face's tokenizers
_CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPieces:
    """Tokens of a vocabulary in which U+2581 begins a word."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = vocabulary.ids
        self._longest = max(map(len, vocabulary.texts), default=0)
        self._unknown = vocabulary.token("unknown", 100)
        self._lowers = vocabulary.flag("normalizer.lowercase", True)
        self._strips = vocabulary.flag("normalizer.strip_accents", self._lowers)
        self._forms: dict[str, str] = {}
        self._words = Words(self._pieces)

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``."""
        forms = self._forms
        found = decoded(text)
        for character in set(found) - forms.keys():
            forms[character] = self._form(character)
        tokens: list[int] = []
        for word in "".join(map(forms.__getitem__, found)).split(" "):
            if word:
                tokens += self._words[word]
        return tokens

    def _form(self, character: str) -> str:
        """What a character becomes: a blank, nothing, a word of its own, or a part of one."""
        if self._strips:
            character = base(character)
        k = kind(character)
        if character in WHITESPACE:
            return " "
        if character in "\0\ufffd" or k == "C" or (self._strips and k == "M"):
            return ""
        form = lower(character) if self._lowers else character
        number = ord(character)
        stands_alone = k == "P" or (k == "S" and number < 0x7F) or any(a <= number <= b for a, b in _CHINESE)
        return f" {form} " if stands_alone else form

    def _pieces(self, word: str) -> list[int]:
        word, at, tokens = "\u2581" + word, 0, []
        while at < len(word):
            for end in range(min(len(word), at + self._longest), at, -1):
                token = self._ids.get(word[at:end])
                if token is not None:
                    tokens.append(token)
                    at = end
                    break
            else:
                return [needed(self._unknown, "unknown")]
        return tokens
