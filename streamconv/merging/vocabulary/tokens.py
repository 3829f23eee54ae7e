"""The vocabulary of one model: which text has which id, and which tokens stand beside the vocabulary proper."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BadInput, InputMissing
from ...sources.checkpoint import Checkpoint
from ...sources.sentencepiece import CONTROL, USER_DEFINED, read_pieces

#: more is a damaged number, not a token
_MAX_ID = 1 << 24
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
TOKENIZER, CONFIG, ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
SENTENCEPIECE, VOCABULARY = "tokenizer.model", "vocab.json"

#: how a token stands in the text: ``special``, ``normalized``, …
Flags = Mapping[str, bool]


@dataclass(frozen=True)
class Tokens:
    """The tokens of one model.

    Attributes
    ----------
    where : for messages
    ids : text -> id of all tokens
    added : text -> flags of those that stand beside the vocabulary, which a tokenizer looks for before it does anything
    """

    where: str
    ids: Mapping[str, int]
    added: Mapping[str, Flags]

    @property
    def end(self) -> int:
        """One more than the largest id."""
        return max(self.ids.values(), default=-1) + 1

    def ordered(self, below: int) -> list[tuple[int, str]]:
        """``(id, text)`` of all tokens with ids below ``below``, ascending."""
        return sorted((index, text) for text, index in self.ids.items() if index < below)


def read_tokens(checkpoint: Checkpoint, where: str) -> Tokens:
    """The tokens of a model, from tokenizer.json, else tokenizer.model, else vocab.json.

    Raises
    ------
    InputMissing : it has no tokenizer of a kind whose tokens can be told
    BadInput : a file is damaged
    """
    ids: dict[str, int] = {}
    added: dict[str, Flags] = {}
    place = checkpoint.folder
    fast = checkpoint.json(TOKENIZER)
    if fast is not None:
        _put(ids, _vocabulary(fast, place / TOKENIZER), place / TOKENIZER)
        _add(ids, added, _entries(fast, place / TOKENIZER), place / TOKENIZER)
    elif (data := checkpoint.side_bytes(SENTENCEPIECE)) is not None:
        texts, _, kinds = read_pieces(data, place / SENTENCEPIECE)
        for index, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
            ids.setdefault(sys.intern(text), index)
            if kind in (CONTROL, USER_DEFINED):
                added.setdefault(text, flags({"special": kind == CONTROL}))
    elif (vocabulary := checkpoint.json(VOCABULARY)) is not None:
        _put(ids, vocabulary.items(), place / VOCABULARY)
    else:
        raise InputMissing(
            f"{where} has no {TOKENIZER}, {SENTENCEPIECE} or {VOCABULARY}, so it is unknown which row is which token",
            "Put its tokenizer files into its folder; or leave out tokenizer, if all models share one vocabulary.",
        )
    for path, entries in ((place / ADDED, _beside(checkpoint)), (place / CONFIG, _declared(checkpoint))):
        _add(ids, added, [e for e in entries if e.get("content") not in added], path)
    return Tokens(where, ids, added)


def flags(entry: Mapping[str, Any]) -> Flags:
    """The flags of a token in the order tokenizer.json writes them; a special token is not normalized unless it says so."""
    special = bool(entry.get("special", False))
    return {key: bool(entry.get(key, not special if key == "normalized" else False)) for key in _FLAGS}


def _beside(checkpoint: Checkpoint) -> list[Mapping[str, Any]]:
    """The tokens of added_tokens.json."""
    return [{"content": text, "id": index} for text, index in (checkpoint.json(ADDED) or {}).items()]


def _declared(checkpoint: Checkpoint) -> list[Mapping[str, Any]]:
    """The tokens of tokenizer_config.json."""
    path = checkpoint.folder / CONFIG
    found = (checkpoint.json(CONFIG) or {}).get("added_tokens_decoder") or {}
    if not isinstance(found, Mapping):
        raise BadInput(f"{path}: added_tokens_decoder is not an object")
    return [
        {**_entry(entry, path), "id": int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 20 else key}
        for key, entry in found.items()
    ]


def _vocabulary(fast: Mapping[str, Any], path: Path) -> Iterable[tuple[Any, Any]]:
    """``(text, id)`` of tokenizer.json's model."""
    model = fast.get("model")
    found = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(found, Mapping):
        return found.items()
    if isinstance(found, list):  # Unigram: pairs of text and score
        return ((pair[0] if isinstance(pair, list) and pair else None, index) for index, pair in enumerate(found))
    raise BadInput(f"{path} has no vocabulary", "Fetch it again.")


def _entries(fast: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    found = fast.get("added_tokens") or []
    if not isinstance(found, list):
        raise BadInput(f"{path}: added_tokens is not a list")
    return [_entry(entry, path) for entry in found]


def _entry(entry: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{path}: {entry!r} is not an added token")
    return entry


def _put(ids: dict[str, int], pairs: Iterable[tuple[Any, Any]], path: Path) -> None:
    for text, index in pairs:
        if not isinstance(text, str) or type(index) is not int or not 0 <= index < _MAX_ID:
            raise BadInput(f"{path}: the token {text!r} has the id {index!r}", "Fetch it again.")
        ids[sys.intern(text)] = index


def _add(ids: dict[str, int], added: dict[str, Flags], entries: Iterable[Mapping[str, Any]], path: Path) -> None:
    for entry in entries:
        text = entry.get("content")
        _put(ids, [(text, entry.get("id"))], path)
        added[sys.intern(str(text))] = flags(entry)
