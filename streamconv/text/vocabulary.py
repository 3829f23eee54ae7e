"""The tokens of a GGUF file with their kinds as llama.cpp takes them, and the tokens that begin and end a text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import BadInput

PREFIX = "tokenizer.ggml."
#: a blank in a token
BLANK = "\u2581".encode()
#: kinds of tokens, one bit each; a token can be of several
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE, STRIPS_LEFT, STRIPS_RIGHT = (1 << n for n in range(8))
#: tokenizer.ggml.token_type -> kind
_KINDS = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}

#: texts that end a turn or a text, which llama.cpp takes for control tokens whatever the file says
_ENDS = (
    *(
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "</s>",
    ),
    *(
        "<|endoftext|>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
    ),
    *("<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
#: parts of a text to fill in: keys that name the token, and texts of which one is taken where no key does
_FILLED_IN: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("fim_pre", "prefix"),
        (
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ),
    ),
    (
        ("fim_suf", "suffix"),
        (
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ),
    ),
    (
        ("fim_mid", "middle"),
        (
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ),
    ),
    (("fim_pad",), ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    (("fim_rep",), ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    (("fim_sep",), ("<|file_sep|>",)),
)
#: parts of a message of gpt-oss, which are always matched
_PARTS_OF_MESSAGES = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


class Keys(Protocol):
    """GGUF keys and their plain values: a dictionary, or ``Metadata``."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of ``key``, or ``default``."""


class Vocabulary:
    """Tokens by number and by text.

    Attributes
    ----------
    texts : list of str; an empty one is ``[EMPTY_n]``, and none goes on behind a zero byte
    kinds : list of int, bits as above
    scores : list of float, zeros where the file has none
    ids : text -> number

    Raises
    ------
    BadInput : a key is missing, of another type, or too short
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.texts = [text.partition("\0")[0] or f"[EMPTY_{i}]" for i, text in enumerate(self.strings("tokens"))]
        self.ids = {text: i for i, text in enumerate(self.texts)}
        types = self._beside("token_type")
        self.kinds = [_KINDS.get(t, 0) for t in types] if types else [NORMAL] * len(self.texts)
        #: kinds as the file has them
        self.stored_kinds = tuple(self.kinds)
        self.scores: list[float] = np.asarray(self._beside("scores") or [0.0] * len(self.texts), np.float32).tolist()
        self._correct_kinds()
        self._strip_blanks()

    def __len__(self) -> int:
        return len(self.texts)

    def strings(self, name: str) -> list[str]:
        """The array of strings ``name``."""
        found = self.keys.get(PREFIX + name)
        texts: list[Any] = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [None]
        if not all(isinstance(text, str) for text in texts):
            what = "is missing" if found is None else "is not an array of strings"
            raise BadInput(f"key {PREFIX}{name} {what}: text cannot be made into tokens without it")
        return texts

    def flag(self, name: str, default: bool) -> bool:
        """The flag ``name``, or ``default``."""
        found = self.keys.get(PREFIX + name, default)
        if not isinstance(found, bool):
            raise BadInput(f"key {PREFIX}{name} is {found!r:.80}, which is neither true nor false")
        return found

    def token(self, name: str, default: int | None = None) -> int | None:
        """The token that the key ``NAME_token_id`` names; ``default`` where it does not, or names none of the vocabulary."""
        for number in (self.keys.get(f"{PREFIX}{name}_token_id"), default):
            if isinstance(number, int) and 0 <= number < len(self.texts):
                return number
        return None

    def _beside(self, name: str) -> list[Any] | None:
        """The numbers ``name``, one for every token."""
        found = self.keys.get(PREFIX + name)
        if found is None:
            return None
        if isinstance(found, str) or not hasattr(found, "__len__") or len(found) < len(self.texts):
            raise BadInput(f"key {PREFIX}{name} does not have a number for each of the {len(self.texts)} tokens")
        return list(found[: len(self.texts)])

    def _correct_kinds(self) -> None:
        ends = {text for text in _ENDS if text in self.ids}
        for text in ends:
            self._add(self.ids[text], CONTROL)
        for keys, texts in _FILLED_IN:
            known = [self.ids[text] for text in texts if text in self.ids]
            if known and all(self.token(key) is None for key in keys):
                self._add(max(known), CONTROL)
        for text in _PARTS_OF_MESSAGES:
            if text in self.ids:
                self.kinds[self.ids[text]] = USER_DEFINED
        if "<|end|>" in ends and ends & {"<|call|>", "<|calls|>"} and ends & {"<|return|>", "<|flush|>"}:
            self.kinds[self.ids["<|end|>"]] = USER_DEFINED
        eos = self.token("eos", 2 if self.keys.get(f"{PREFIX}model") == "plamo2" else None)
        ending = {self.texts[i] for i in (eos, self.token("eot"), self.token("eom")) if i is not None}
        if "</s>" in ends and ("<|tool_response>" in ends or "<|plamo:eos|>" in ending):
            self.kinds[self.ids["</s>"]] = NORMAL

    def _strip_blanks(self) -> None:
        """Tokens of a few models that take the blanks around them along, which llama.cpp knows by name."""
        pre, architecture = str(self.keys.get(PREFIX + "pre", "")), str(self.keys.get("general.architecture", ""))
        name = str(self.keys.get("general.name", "")).lower()
        if _has_any(pre, ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or _has_any(
            architecture, ("nomic-bert-moe", "jina-bert-v3")
        ):
            self._strip("<mask>", STRIPS_LEFT)
        elif _has_any(name, ("phi-3", "phi3")):
            for i in self.matched():
                if self.texts[i] not in ("<unk>", "<s>", "<|endoftext|>"):
                    self._add(i, STRIPS_RIGHT)
        elif "modern-bert" in name:
            self._strip("[MASK]", STRIPS_LEFT)

    def matched(self) -> list[int]:
        """Tokens that are looked for in a text before it is split, the longest first."""
        found = [i for i, kind in enumerate(self.kinds) if kind & (UNKNOWN | CONTROL | USER_DEFINED)]
        return sorted(found, key=lambda i: -len(self.texts[i].encode("utf-8", "surrogatepass")))

    def _strip(self, text: str, kind: int) -> None:
        if text in self.ids:
            self._add(self.ids[text], kind)

    def _add(self, token: int, kind: int) -> None:
        self.kinds[token] |= kind


def _has_any(text: str, parts: Collection[str]) -> bool:
    return any(part in text for part in parts)


def needed(token: int | None, name: str) -> int:
    """``token``; BadInput where the vocabulary has none.

    >>> needed(3, "unknown")
    3
    """
    if token is None:
        raise BadInput(
            f"the vocabulary has no {name} token, which this text needs",
            f"{PREFIX}{name}_token_id says which one it is; llama.cpp ends its process without it.",
        )
    return token


def byte_tokens(ids: Mapping[str, int]) -> list[int | None]:
    """256 tokens of bytes, ``<0x00>`` to ``<0xFF>``; None where one is missing."""
    return [ids.get(f"<0x{byte:02X}>") for byte in range(256)]
