"""``tokenizer.ggml.pre``: which of the loaders' splitting rules a byte-level BPE vocabulary wants.

The name is found as llama.cpp's converter finds it: encode a fixed text full of awkward characters, hash the id list,
look the hash up. A match means that vocabulary, merges and splitting are those of a known model. Names and hashes are
in ``models/data/pretokenizers.json``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import BadInput, UsageError
from .files import TokenizerFiles
from .library import Question

_DATA = Path(__file__).parent.parent / "data" / "pretokenizers.json"

#: what a split pattern contains -> names whose rules contain it too; a hint for people, never a decision
_TRAITS = (
    ("\\p{Lu}", ("gpt-4o", "llama4", "tekken")),
    ("一-龥", ("deepseek-v3", "deepseek-llm")),
    ("\\p{N}{1,3}", ("llama-bpe", "dbrx", "glm4")),
    ("\\p{N}|", ("qwen2", "stablelm2", "deepseek-r1-qwen")),
    ("Digits", ("starcoder", "refact", "smollm", "command-r")),
)
#: tokenizer class -> the name of its rules
_OF_CLASS = {
    "Qwen2Tokenizer": "qwen2",
    "GPT2Tokenizer": "gpt-2",
    "CohereTokenizer": "command-r",
    "BloomTokenizer": "bloom",
}
#: tokenizer class -> the pattern of words after NFC, where vocab.json and merges.txt are split otherwise than GPT-2 does
_WORDS = {
    "Qwen2Tokenizer": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_DATA.read_text(encoding="ascii"))
    return table


def known_names() -> list[str]:
    """All names a loader knows, sorted."""
    return list(_table()["names"])


def check_name(name: str) -> str:
    """``name`` if a loader knows it.

    Raises
    ------
    UsageError : it does not; lists near names
    """
    names = known_names()
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5)
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise UsageError(f"no loader knows the pre-tokenizer {name!r}", f"{meant}Names: {', '.join(names)}")


def name_of_ids(ids: Sequence[int]) -> tuple[str | None, str]:
    """Name for the id list of the check text, None if unknown, and its sha256 in hex.

    >>> name_of_ids([1, 2])[0] is None
    True
    """
    digest = hashlib.sha256(("[" + ", ".join(map(str, ids)) + "]").encode("ascii")).hexdigest()
    return _table()["hashes"].get(digest), digest


class Detection(Question):
    """A running encoding of the check text; start it, do something else, ask for ``name``.

    Parameters
    ----------
    files : has tokenizer.json, or vocab.json and merges.txt

    Errors: BadInput when one of them is far too large.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        names = ["tokenizer.json"] if files.has("tokenizer.json") else ["vocab.json", "merges.txt"]
        places = [files.place(name) for name in names]
        request: dict[str, Any] = {"text": _table()["check_text"]}
        text = places[0] if isinstance(places[0], bytes) else None
        if text is None:
            keys = ["file"] if len(names) == 1 else ["vocab", "merges"]
            request |= {key: str(place) for key, place in zip(keys, places, strict=True)}
        if len(names) == 2 and files.tokenizer_class in _WORDS:
            request["words"] = _WORDS[files.tokenizer_class]
        self._class = files.tokenizer_class
        super().__init__(files.called(names[0]), request, text, "Name its pre-tokenizer: --pre NAME")

    def name(self, pre_tokenizer: Any = None, bos: int | None = None, eos: int | None = None) -> str:
        """The pre-tokenizer's name.

        Parameters
        ----------
        pre_tokenizer : tokenizer.json's entry, for the hint when the hash is unknown
        bos, eos : ids to try around the plain encoding: the hash covers special tokens, and a checkpoint whose
            template differs from the known model's in nothing but these is still that model's

        Raises
        ------
        BadInput : the hash is unknown, or the file cannot be used
        """
        answer = self.answer()
        plain: list[int] = answer["plain"]
        _, digest = name_of_ids(answer["ids"])
        for ids in (answer["ids"], plain, *_framed(plain, bos, eos)):
            found, _ = name_of_ids(ids)
            if found is not None:
                return found
        near = candidates(pre_tokenizer)
        like = f"Its rules look like those of: {', '.join(near)}. " if near else ""
        if self._class in _OF_CLASS:
            like = f"For its class, {self._class}, that is probably --pre {_OF_CLASS[self._class]}. {like}"
        raise BadInput(
            f"{self._file}: no known model splits text like this tokenizer (check text hash {digest})",
            f"Name the pre-tokenizer of the model it was derived from: --pre NAME. {like}"
            f"All names: {', '.join(known_names())}",
        )


def _framed(plain: list[int], bos: int | None, eos: int | None) -> Iterator[list[int]]:
    first = [] if bos is None else [bos]
    last = [] if eos is None else [eos]
    if first:
        yield first + plain
    if last:
        yield plain + last
        yield first + plain + last


def candidates(pre_tokenizer: Any) -> list[str]:
    """Names whose splitting rules resemble tokenizer.json's ``pre_tokenizer``.

    >>> candidates({"type": "ByteLevel", "use_regex": True})
    ['gpt-2']
    """
    if not pre_tokenizer:
        return []
    text = json.dumps(pre_tokenizer, ensure_ascii=False).replace("\\\\", "\\")
    for needle, names in _TRAITS:
        if needle in text:
            return list(names)
    return ["gpt-2"] if "ByteLevel" in text and '"Split"' not in text else []
