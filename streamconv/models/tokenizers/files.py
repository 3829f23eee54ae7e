"""The tokenizer's files beside a checkpoint, each read once and checked for shape.

In all of them null says nothing: it counts as an absent key.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...sources.checkpoint import Checkpoint
from ...sources.hostile_json import MAX_TOKENIZER_BYTES, NotJson, parse_json
from ...sources.naming import shown
from ...sources.placeholders import HEAD_BYTES, refuse_placeholder
from ...sources.small_files import open_regular

#: classes that any tokenizer may be saved under
_GENERIC_CLASSES = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
#: beginning of ``model_type`` -> the class that transformers takes
_CLASS_OF_TYPE = {"qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "gpt2": "GPT2Tokenizer"}
#: what every reader of special tokens needs; they precede the vocabulary in files written by ``tokenizers``
_HEAD_KEYS = frozenset(("added_tokens", "post_processor"))
#: added tokens take 200 bytes each
_HEADS, _MAX_HEAD_BYTES = 8, 8 << 20
#: what tokenizer_config.json names as ``bos_token`` and its like
SPECIAL_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class AddedToken:
    """One entry of tokenizer.json's ``added_tokens`` or tokenizer_config.json's ``added_tokens_decoder``.

    Attributes
    ----------
    has_edges : what is around it matters: it takes blanks beside it, or stands for a whole word only
    """

    id: int
    text: str
    special: bool
    normalized: bool
    has_edges: bool = field(default=False, compare=False)


class TokenizerFiles:
    """Side files of one checkpoint, parsed when asked for.

    Parameters
    ----------
    checkpoint : where they lie; ``checkpoint.config`` is config.json as it stands
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.folder = checkpoint.folder
        self.raw_config = checkpoint.config

    def called(self, name: str) -> Path:
        """What messages call the file ``name``."""
        return self._checkpoint.called(name)

    def owners(self) -> list[Path]:
        """The folders in which the files were looked for: that of the checkpoint, of a merge those of its models."""
        found = self._checkpoint
        if found.side is None:
            return [self.folder]
        return list(dict.fromkeys(f.path.parent for f in found.inputs if f.path != found.path)) or [self.folder]

    def has(self, name: str) -> bool:
        """Whether there is a file ``name``."""
        return self._checkpoint.side_file(name) is not None

    def place(self, name: str) -> Path | bytes | None:
        """The path of the file ``name``, or its bytes where it exists in memory only; None when there is none.

        Raises
        ------
        BadInput : it is far too large for a tokenizer
        """
        place = self._checkpoint.side_file(name)
        if isinstance(place, Path) and (size := place.stat().st_size) > MAX_TOKENIZER_BYTES:
            raise BadInput(f"{place} has {size} bytes, over the limit of {MAX_TOKENIZER_BYTES}")
        return place

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match ``pattern``, sorted."""
        return [name for name in self._checkpoint.side_names() if fnmatchcase(name, pattern)]

    def bytes(self, name: str) -> bytes | None:
        """The bytes of the file ``name``, or None."""
        return self._checkpoint.side_bytes(name)

    def text(self, name: str) -> str | None:
        """The file ``name`` as text, or None."""
        return self._checkpoint.text(name)

    def json(self, name: str) -> dict[str, Any] | None:
        """The file ``name`` as an object, or None; not kept."""
        return self._checkpoint.json(name)

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, {} when there is none."""
        return self.json("tokenizer_config.json") or {}

    def flag(self, name: str) -> bool | None:
        """The switch ``name`` of tokenizer_config.json, None where it says nothing.

        Raises
        ------
        BadInput : it is something else than true or false
        """
        return as_flag(self.tokenizer_config.get(name), f"{self.called('tokenizer_config.json')}: {name!r}")

    def special_text(self, kind: str) -> str | None:
        """The text of ``bos_token`` and its like in tokenizer_config.json, None where it says nothing.

        Raises
        ------
        BadInput : it is no text
        """
        value = self.tokenizer_config.get(f"{kind}_token")
        text = token_text(value)
        if value is not None and text is None:
            where = self.called("tokenizer_config.json")
            raise BadInput(f"{where}: '{kind}_token' is {said(value)}, not the text of a token")
        return text

    @cached_property
    def special_map(self) -> dict[str, Any]:
        """special_tokens_map.json, which transformers reads where tokenizer_config.json lists no added tokens."""
        if self.tokenizer_config.get("added_tokens_decoder"):
            return {}
        return self.json("special_tokens_map.json") or {}

    @property
    def tokenizer_class(self) -> str:
        """The tokenizer's class without ``Fast``, that of the model's type where none is named; may be empty."""
        named = self.tokenizer_config.get("tokenizer_class")
        if isinstance(named, str) and named not in _GENERIC_CLASSES:
            return named.removesuffix("Fast")
        kind = str(self.raw_config.get("model_type") or "")
        return next((name for start, name in _CLASS_OF_TYPE.items() if kind.startswith(start)), "")

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json, {} when there is none or it is damaged: nothing depends on it alone."""
        try:
            return self.json("generation_config.json") or {}
        except BadInput:
            return {}

    @cached_property
    def tokenizer_head(self) -> dict[str, Any]:
        """tokenizer.json without its ``model``, {} when there is none.

        The vocabulary and merges are nearly all of the file (33 MB for Gemma 3). What comes before them is cut off
        and parsed alone; if the keys we need come later, the file is parsed whole.
        """
        place = self.place("tokenizer.json")
        if place is None:
            return {}
        head = _json_before_model(place) if isinstance(place, Path) else None
        if head is None:
            head = self.json("tokenizer.json") or {}
            head.pop("model", None)
        return head

    @cached_property
    def added_tokens(self) -> list[AddedToken]:
        """tokenizer.json's added tokens in the order of the file."""
        entries = self.tokenizer_head.get("added_tokens") or []
        if not isinstance(entries, list):
            raise BadInput(f"{self.called('tokenizer.json')}: added_tokens is not a list")
        where = f"{self.called('tokenizer.json')}: added_tokens"
        return [_added_token(entry, _entry(entry, where).get("id"), where) for entry in entries]

    @cached_property
    def declared_tokens(self) -> list[AddedToken]:
        """tokenizer_config.json's ``added_tokens_decoder`` in the order of the file."""
        entries = self.tokenizer_config.get("added_tokens_decoder") or {}
        where = f"{self.called('tokenizer_config.json')}: added_tokens_decoder"
        if not isinstance(entries, dict):
            raise BadInput(f"{where} is not an object")
        return [_added_token(entry, key, where) for key, entry in entries.items()]

    @cached_property
    def listed_tokens(self) -> dict[str, int]:
        """added_tokens.json: text -> id."""
        entries = self.json("added_tokens.json") or {}
        for text, index in entries.items():
            if token_id(index) is None or index < 0:
                raise BadInput(f"{self.called('added_tokens.json')}: {text!r} has the id {index!r}")
        return entries

    def special_texts(self) -> Iterator[str]:
        """Texts that are named as special: ``bos_token`` and its like, then the additional ones."""
        for kind in SPECIAL_KINDS:
            text = self.special_text(kind) or token_text(self.special_map.get(f"{kind}_token"))
            if text is not None:
                yield text
        for config in (self.tokenizer_config, self.special_map):
            for key in ("additional_special_tokens", "extra_special_tokens"):
                more = config.get(key) or []
                for entry in more.values() if isinstance(more, dict) else more if isinstance(more, list) else []:
                    text = token_text(entry)
                    if text is not None:
                        yield text


def as_flag(value: Any, where: str) -> bool | None:
    """``value`` if it is true, false or null; BadInput, beginning with ``where``, otherwise."""
    if value is None or isinstance(value, bool):
        return value
    raise BadInput(f"{where} is {said(value)}, not true or false")


def said(value: Any) -> str:
    """A value as messages quote it."""
    return shown(value) if isinstance(value, str) else repr(value)[:80]


def token_text(entry: Any) -> str | None:
    """The text of a special token, which is written as a string or as an object with ``content``."""
    if isinstance(entry, Mapping):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def token_id(value: Any) -> int | None:
    """``value`` if it is a plain integer; true and lists are not."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _entry(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{where}: {entry!r} is not an object")
    return entry


def _added_token(entry: Any, key: Any, where: str) -> AddedToken:
    entry = _entry(entry, where)
    text = entry.get("content")
    try:
        index = int(key)
    except (TypeError, ValueError, OverflowError):
        index = -1
    if index < 0 or isinstance(key, bool | float) or not isinstance(text, str):
        raise BadInput(f"{where}: {dict(entry)!r} (id {key!r}) lacks a valid id or text")
    special = as_flag(entry.get("special"), f"{where}: 'special' of {text!r}") or False
    normalized = as_flag(entry.get("normalized"), f"{where}: 'normalized' of {text!r}")
    edges = any(
        [as_flag(entry.get(key), f"{where}: {key!r} of {text!r}") for key in ("lstrip", "rstrip", "single_word")]
    )
    return AddedToken(index, text, special, not special if normalized is None else normalized, edges)


def _json_before_model(path: Path) -> dict[str, Any] | None:
    """The top-level keys of ``path`` that precede ``model``; None if that does not hold all of ``_HEAD_KEYS``.

    A quoted ``"model"`` cannot stand inside a JSON string, and closing the text before it with a brace is valid JSON
    only at the top level, so the first such place that parses is the right one. The first few are tried; then the file is
    parsed whole.
    """
    try:
        with open(open_regular(path), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            refuse_placeholder(path, data[:HEAD_BYTES])
            if data[-64:].rstrip()[-1:] != b"}":
                raise BadInput(f"{path} is not valid JSON: it ends early", "Fetch it again.")
            at = 0
            for _ in range(_HEADS):
                at = data.find(b'"model"', at, _MAX_HEAD_BYTES)
                if at < 0:
                    break
                try:
                    head = parse_json(data[:at].rstrip().removesuffix(b",") + b"}")
                except NotJson:
                    at += 1
                    continue
                return head if isinstance(head, dict) and head.keys() >= _HEAD_KEYS else None
    except ValueError:  # an empty file cannot be mapped
        raise BadInput(f"{path} is empty") from None
    return None
