"""A tokenizer as the keys of a GGUF file describe it."""

from __future__ import annotations

from ..errors import BadInput
from .byte_pairs import BytePairs
from .kind import Kind
from .longest_match import LongestMatch
from .plamo import Plamo
from .pretokenizers import PreTokenizer, pre_tokenizer
from .sentence_pieces import SentencePieces
from .special import Special
from .unigram import Unigram
from .vocabulary import PREFIX, Keys, Vocabulary, needed
from .word_pieces import WordPieces

#: tokenizer.ggml.model -> tokens BOS and EOS, and whether texts begin and end with them, where no key says so
_DEFAULTS: dict[str, tuple[int | None, int | None, bool, bool]] = {
    "llama": (1, 2, True, False),
    "gpt2": (11, 11, False, False),
    "whitespace": (11, 11, False, False),
    "gemma4": (None, None, False, False),
    "bert": (101, None, True, False),
    "t5": (None, 1, False, True),
    "rwkv": (None, None, False, False),
    "plamo2": (1, 2, False, False),
}


class Tokenizer:
    """Makes the tokens of a text that llama.cpp makes.

    Attributes
    ----------
    bos, eos : tokens that begin and end a text, or None
    add_bos, add_eos : whether the model wants them there
    n_tokens : how many the vocabulary has
    """

    def __init__(self, model: str, vocabulary: Vocabulary, kind: Kind, pre: PreTokenizer | None) -> None:
        bos, eos, add_bos, add_eos = _DEFAULTS[model]
        if pre is not None:
            bos, add_bos = bos if pre.has_bos else None, pre.adds_bos
        self.bos, self.eos = vocabulary.token("bos", bos), vocabulary.token("eos", eos)
        self.add_bos = vocabulary.flag("add_bos_token", add_bos) or (pre is not None and pre.forces_bos)
        self.add_eos = vocabulary.flag("add_eos_token", add_eos)
        self.n_tokens = len(vocabulary)
        self._kind, self._special = kind, Special(vocabulary)
        self._separator = vocabulary.token("seperator", 102)  # misspelled in the format
        self._model = model

    def encode(self, text: str | bytes, *, parse_special: bool = False, add_special: bool = True) -> list[int]:
        """Tokens of ``text``, which need not be valid UTF-8 where it is bytes.

        Parameters
        ----------
        parse_special : the texts of control tokens become these tokens; those of user-defined ones always do
        add_special : tokens that begin and end a text are added, as the model wants it

        Raises
        ------
        BadInput : the vocabulary has nothing for a part of the text, or it has characters beyond Unicode
        """
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        before, after = self._ends() if add_special else ([], [])
        tokens, follows_token = before, True
        for part in self._special.parts(data, parse_special):
            follows_token, followed = isinstance(part, int), follows_token
            tokens += [part] if isinstance(part, int) else self._kind.encode(part, followed)
        return tokens + after

    def _ends(self) -> tuple[list[int], list[int]]:
        if self._model in ("rwkv", "plamo2"):
            return [], []  # llama.cpp adds nothing there, whatever the keys say
        if self._model == "bert":
            return [needed(self.bos, "bos")], [needed(self._separator, "seperator")]
        return (
            [needed(self.bos, "bos")] if self.add_bos else [],
            [needed(self.eos, "eos")] if self.add_eos else [],
        )


def open_tokenizer(metadata: Keys) -> Tokenizer:
    """The tokenizer that ``metadata``, the keys of a GGUF file, describes.

    Raises
    ------
    BadInput : ``tokenizer.ggml.model`` or ``tokenizer.ggml.pre`` is of a kind that is not known here; keys are missing or damaged

    Examples
    --------
    >>> pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"]
    >>> keys = {"model": "llama", "tokens": pieces, "scores": [0, 0, 0, -5, -6, -7, -1, -2], "token_type": [2, 3, 3, 1, 1, 1, 1, 1]}
    >>> tokenizer = open_tokenizer({f"tokenizer.ggml.{key}": value for key, value in keys.items()})
    >>> tokenizer.encode("ab a"), tokenizer.encode("ab<s>", parse_special=True, add_special=False)
    ([1, 6, 5, 6], [6, 5, 1])
    """
    model = metadata.get(f"{PREFIX}model")
    if model not in _DEFAULTS:
        what = "is missing" if model is None else f"is {model!r:.80}, a kind of vocabulary that is not known here"
        raise BadInput(f"key {PREFIX}model {what}", f"Text becomes tokens with one of {', '.join(sorted(_DEFAULTS))}.")
    vocabulary = Vocabulary(metadata)
    pre = None
    kind: Kind
    if model in ("gpt2", "whitespace", "gemma4"):
        name = metadata.get(f"{PREFIX}pre") or "default"
        pre = pre_tokenizer("gemma4" if model == "gemma4" else str(name))
        kind = BytePairs(vocabulary, pre, drops_blanks=model == "whitespace")
    elif model == "llama":
        kind = SentencePieces(vocabulary)
    elif model == "bert":
        kind = WordPieces(vocabulary)
    elif model == "t5":
        kind = Unigram(vocabulary)
    else:
        kind = LongestMatch(vocabulary) if model == "rwkv" else Plamo(vocabulary)
    return Tokenizer(str(model), vocabulary, kind, pre)
