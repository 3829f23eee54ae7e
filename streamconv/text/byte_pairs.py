"""Byte-pair vocabularies (``gpt2``, ``gemma4``, ``whitespace``): words of a pre-tokenizer, merged by ranks."""

from __future__ import annotations

from .characters import WHITESPACE, decoded, lower
from .kind import Words
from .merging import Seams, merged
from .pretokenizers import PreTokenizer
from .splitting import Splitter
from .vocabulary import BLANK, PREFIX, Vocabulary, byte_tokens

#: bytes as byte-level vocabularies spell them: printable ones are themselves, the others follow on U+0100
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_ALPHABET = {byte: byte for byte in _PRINTABLE} | {
    byte: 0x100 + n for n, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)
}


class BytePairs:
    """Tokens of a vocabulary with merges.

    Parameters
    ----------
    drops_blanks : blanks only separate words, as in vocabularies called ``whitespace``

    Raises
    ------
    BadInput : merges are missing
    """

    def __init__(self, vocabulary: Vocabulary, pre: PreTokenizer, drops_blanks: bool = False) -> None:
        self._ids, self._pre, self._drops_blanks = vocabulary.ids, pre, drops_blanks
        self._lowers = drops_blanks and vocabulary.flag("normalizer.lowercase", not pre.keeps_case)
        self._splitter = Splitter(pre.patterns)
        merges = (
            []
            if pre.needs_no_merges and vocabulary.keys.get(f"{PREFIX}merges") is None
            else vocabulary.strings("merges")
        )
        #: "left right" -> rank, the first of equal ones
        self._ranks = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))
        self._bytes = byte_tokens(vocabulary.ids)
        self._words = Words(self._merge)
        # Where words are whole lines, no merge reaches over most places of them.
        self._seams = Seams(m.replace(" ", "", 1) for m in merges) if pre.escapes_blanks else None

    def encode(self, text: bytes, follows_token: bool) -> list[int]:
        """Tokens of ``text``."""
        found = decoded(text.replace(b" ", BLANK) if self._pre.escapes_blanks else text)
        tokens: list[int] = []
        for segment in self._segments(found) if self._drops_blanks else [found]:
            for word in self._splitter.words(segment):
                for part in self._parts(word):
                    tokens += self._words[part]
        return tokens

    def _segments(self, text: str) -> list[str]:
        """What is between blanks."""
        spaced = "".join(" " if c in WHITESPACE else lower(c) if self._lowers else c for c in text)
        return [segment for segment in spaced.split(" ") if segment]

    def _parts(self, word: str) -> list[str]:
        return [word] if self._seams is None or self._is_lines(word) else self._seams.parts(word)

    def _is_lines(self, word: str) -> bool:
        """Whether it is a run of line ends that is a token, whatever the merges say."""
        return self._pre.lines_are_tokens and word in self._ids and not word.strip("\n")

    def _merge(self, word: str) -> list[int]:
        ids = self._ids
        if self._pre.byte_level:
            word = word.encode("utf-8", "surrogatepass").decode("latin-1").translate(_ALPHABET)
        if (self._pre.whole_words and word in ids) or self._is_lines(word):
            return [ids[word]]
        tokens = []
        for symbol in merged(word, lambda left, right: self._ranks.get(f"{left} {right}")):
            token = ids.get(symbol)
            tokens += [token] if token is not None else self._spell(symbol)
        return tokens

    def _spell(self, symbol: str) -> list[int]:
        """What stands for a symbol that is no token: its bytes, as far as there are tokens for them."""
        if self._pre.byte_level:
            return [self._ids[c] for c in symbol if c.isascii() and c in self._ids]
        spelled = (self._bytes[byte] for byte in symbol.encode("utf-8", "surrogatepass"))
        return [token for token in spelled if token is not None]
