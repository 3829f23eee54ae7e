"""What every reader of a tokenizer hands on: texts, types, scores and merges, by token id."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.sentencepiece import SPACE
from .packed import PackedStrings

#: the converter's score of ids that no piece has
UNUSED_SCORE = -10000.0
#: more tokens than this is a damaged number, not a model
_MAX_TOKENS = 1 << 24
_LOOK_SPECIAL = frozenset(("<pad>", "<mask>", "<2mass>", "[@BOS@]"))
_BRACKETS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


class TokenType(IntEnum):
    """The numbers of ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def looks_special(text: str) -> bool:
    """Whether a token is a control token by its spelling; several models do not mark theirs.

    >>> looks_special("<|im_end|>"), looks_special("<unused7>"), looks_special("<end_of_turn>")
    (True, True, False)
    """
    return text in _LOOK_SPECIAL or any(text.startswith(a) and text.endswith(b) for a, b in _BRACKETS)


def added_token(text: str, special: bool) -> tuple[str, TokenType]:
    """Text and type of a token that was added to a vocabulary: loaders want user-defined blanks as blanks."""
    if special or looks_special(text):
        return text, TokenType.CONTROL
    return text.replace(SPACE, " "), TokenType.USER_DEFINED


def token_count(config: Mapping[str, Any], given: int | None, needed: int, *keys: str) -> int:
    """How many tokens the file will have: ``given``, else the first of ``keys`` in ``config``, else ``needed``.

    Raises
    ------
    BadInput : the number in the configuration is not a valid token count
    """
    if given is not None:
        return given
    for key in keys:
        count = config.get(key)
        if count is None:
            continue
        if type(count) is not int or not 0 < count <= _MAX_TOKENS:
            raise BadInput(f"config.json: {key} is {count!r}, not a number of tokens")
        return count
    return needed


def check_room(source: object, needed: int, n_tokens: int) -> None:
    """Refuse a tokenizer with ids the model has no row for.

    Raises
    ------
    BadInput : ``needed`` is more than ``n_tokens``, or more than any model has
    """
    if needed > _MAX_TOKENS:
        raise BadInput(f"{source}: {needed - 1} is not a plausible token id")
    if needed > n_tokens:
        raise BadInput(
            f"{source}: token id {needed - 1} is beyond the model's vocabulary of {n_tokens} tokens",
            "The tokenizer belongs to another model, or vocab_size in config.json is wrong.",
        )


@dataclass
class Vocabulary:
    """Tokens in the order of their ids.

    Attributes
    ----------
    model : ``tokenizer.ggml.model``: ``llama`` (SentencePiece), ``gpt2`` (byte-level BPE) or ``bert``
    pre : ``tokenizer.ggml.pre``
    source : the file the tokens are from, for messages
    texts : token texts; a text that is None gets a placeholder in ``fill``
    types : ``TokenType`` of each token
    scores : float32 of each token, or int32 zeros; None where the model has none
    more : keys behind those of all tokenizers
    merges : "left right" in order of rank, None where the model has none
    adds_prefix : whether a blank goes before each text, None where the file does not say
    specials : keys of special tokens, where the file says all of them, so that no other counts
    template : the chat template where no file has one
    checks_ids : whether special ids beyond the last token are left out, as the reference does for this model
    warnings : what was odd about the files
    """

    model: str
    pre: str
    source: str
    texts: list[str | None]
    types: array[int]
    scores: array[Any] | None = None
    merges: PackedStrings | None = None
    adds_prefix: bool | None = None
    specials: Metadata | None = None
    template: str = ""
    checks_ids: bool = True
    more: Metadata = field(default_factory=Metadata)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, model: str, pre: str, source: str, n_tokens: int, score: float | None = None) -> Vocabulary:
        """``n_tokens`` unused slots."""
        unused = array("i", [TokenType.UNUSED]) * n_tokens
        scores = None if score is None else array("f", [score]) * n_tokens
        return cls(model, pre, source, [None] * n_tokens, unused, scores)

    def __len__(self) -> int:
        return len(self.texts)

    def put(self, index: int, text: str, kind: TokenType, score: float | None = None) -> None:
        """Set one token."""
        self.texts[index] = text
        self.types[index] = kind
        if score is not None and self.scores is not None:
            self.scores[index] = score

    def ids(self) -> dict[str, int]:
        """Token text -> id, after giving unused slots their placeholder text.

        Raises
        ------
        BadInput : two tokens have the same text. libllama aborts the process on such a file.
        """
        ids: dict[str, int] = {}
        for index, text in enumerate(self.texts):
            if text is None:
                text = self.texts[index] = f"[PAD{index}]"
            first = ids.setdefault(text, index)
            if first != index and text:  # loaders give empty texts names of their own
                raise BadInput(
                    f"{self.source}: tokens {first} and {index} are both {text!r}",
                    "Loaders stop on such a vocabulary. Give one of them another text, or remove it.",
                )
        return ids

    def write(self, metadata: Metadata) -> None:
        """Add the keys from ``tokenizer.ggml.model`` to ``tokenizer.ggml.token_type``; ``ids`` must have run."""
        metadata.string("tokenizer.ggml.model", self.model)
        metadata.string("tokenizer.ggml.pre", self.pre)
        try:
            packed = PackedStrings(text or "" for text in self.texts)
        except UnicodeEncodeError as e:
            raise BadInput(f"{self.source}: the token {e.object!r} is not valid Unicode") from None
        metadata.array("tokenizer.ggml.tokens", "STRING", packed)
        if self.scores is not None:
            kind = "INT32" if self.scores.typecode == "i" else "FLOAT32"
            metadata.array("tokenizer.ggml.scores", kind, self.scores)
        metadata.array("tokenizer.ggml.token_type", "INT32", self.types)
        metadata.update(self.more)
