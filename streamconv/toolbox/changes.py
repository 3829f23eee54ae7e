"""What a user wants changed in the keys of a GGUF file, and the keys after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import BadInput, UsageError
from ..metadata import Metadata, Value
from ..models.tokenizers.chat_template import by_name, write_chat_templates
from ..models.tokenizers.special import ID_KEYS
from ..sources.checkpoint import MAX_TEXT_BYTES
from ..sources.gguf import SPLIT_KEYS
from ..sources.naming import shown
from ..sources.small_files import read_small
from .values import named_type, parse_value, type_word

_TEMPLATE = "tokenizer.chat_template"
_TOKENS = "tokenizer.ggml.tokens"
#: of the number of a token; Python refuses to read some thousands
_MOST_DIGITS = 20
#: names of special tokens, by which loaders and checkpoints know them -> key
_FURTHER = ("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep", "prefix", "suffix", "middle")
_SPECIAL = {
    name: f"tokenizer.ggml.{middle}_token_id"
    for kind, middle in (*ID_KEYS.items(), *zip(_FURTHER, _FURTHER, strict=True))
    for name in (middle, kind)
}


@dataclass(frozen=True)
class Changes:
    """In this order: removed, renamed and set keys, the keys that have options of their own, the template, special tokens.

    Attributes
    ----------
    remove : keys
    rename : ``OLD=NEW``
    set : ``KEY=VALUE``, in the type that the key has; ``KEY:TYPE=VALUE`` for a key that is not there
    name, description, pre_tokenizer : of general.name, general.description and tokenizer.ggml.pre
    template : a chat template, or several as JSON: ``[{"name": …, "template": …}, …]``
    template_file : of one
    template_config : a tokenizer_config.json that has one, or several
    tokens, token_ids : (name, text or number) of special tokens
    """

    remove: Sequence[str] = ()
    rename: Sequence[str] = ()
    set: Sequence[str] = ()
    name: str | None = None
    description: str | None = None
    pre_tokenizer: str | None = None
    template: str | None = None
    template_file: Path | None = None
    template_config: Path | None = None
    tokens: Sequence[Sequence[str]] = ()
    token_ids: Sequence[Sequence[str]] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) not in (None, ()) and getattr(self, f.name) != [] for f in fields(self))

    def applied(self, before: Metadata, notes: list[str]) -> Metadata:
        """The keys of a file that had those ``before``: what is set keeps its place, new ones come last.

        Parameters
        ----------
        notes : gets what had no effect or was decided

        Raises
        ------
        UsageError : names the option, and the key
        BadInput, InputMissing, NoPermission : a file with a template
        """
        after = Metadata(dict(before.values))
        for key in self.remove:
            _refuse_reserved(key)
            if key not in after:
                notes.append(f"{key} is not there, so it is not removed")
            after.remove(key)
        for text in self.rename:
            after = _renamed(after, text, notes)
        for text in self.set:
            key, value = _told(after, text)
            _refuse_reserved(key)
            after.values[key] = value
        named = (
            ("general.name", self.name), ("general.description", self.description),
            ("tokenizer.ggml.pre", self.pre_tokenizer),
        )  # fmt: skip
        for key, word in named:
            if word is not None:
                _set(after, key, word, "STRING")
        self._set_templates(after, notes)
        for name, text in self.tokens:
            _set(after, _special(name), str(_found_token(after, text, notes)), "UINT32")
        for name, text in self.token_ids:
            _set(after, _special(name), str(_known_id(after, text)), "UINT32")
        _refuse_other_than_utf8(before, after)
        return after

    def _set_templates(self, after: Metadata, notes: list[str]) -> None:
        found = self._templates()
        if found is None:
            return
        warnings: list[str] = []
        named = dict(by_name("the new chat templates", found, warnings))
        notes += warnings
        if not any(named.values()):
            raise UsageError("there is no text in the chat template", f"--remove-key {_TEMPLATE} removes the old one.")
        for key in [key for key in after.values if key.startswith(_TEMPLATE)]:
            if key != _TEMPLATE or "default" not in named:
                after.remove(key)
        write_chat_templates(named, after)

    def _templates(self) -> Any:
        """A text, or a list of names and texts; None where no option has one."""
        given = [each for each in (self.template, self.template_file, self.template_config) if each is not None]
        if len(given) > 1:
            raise UsageError("several options give a chat template", "Use one of them.")
        if self.template_config is not None:
            found = _json(self.template_config)
            template = found.get("chat_template") if isinstance(found, dict) else None
            if not isinstance(template, (str, list)):
                raise BadInput(
                    f"{self.template_config} has no chat_template", "Give a tokenizer_config.json that has one."
                )
            return template
        if self.template_file is not None:
            return _text(self.template_file)
        if self.template is not None and self.template.startswith("["):
            try:
                return json.loads(self.template)
            except ValueError as e:
                raise UsageError(f"--chat-template begins as a JSON list, and is not one: {e}") from None
        return self.template


def _renamed(metadata: Metadata, text: str, notes: list[str]) -> Metadata:
    """The same keys in their order, one under another name."""
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise UsageError(f"--rename-key {text}: write OLD=NEW")
    _refuse_reserved(old)
    _refuse_reserved(new)
    if old not in metadata and new in metadata:
        notes.append(f"{old} is not there and {new} is: nothing to rename")
        return metadata
    if old not in metadata:
        raise UsageError(f"--rename-key {text}: there is no key {old}", "streamconv inspect lists the keys.")
    if new in metadata:
        raise UsageError(f"--rename-key {text}: {new} is there already", f"Remove it first: --remove-key {new}.")
    return Metadata({new if key == old else key: value for key, value in metadata.items()})


def _told(metadata: Metadata, text: str) -> tuple[str, Value]:
    """Key and value of ``--set``."""
    key, sign, word = text.partition("=")
    if not (key and sign):
        raise UsageError(f"--set {text}: write KEY=VALUE, or KEY:TYPE=VALUE for a new key")
    name, colon, kind = key.rpartition(":")
    if key in metadata or not colon:
        name, kind = key, ""
    stored = metadata.values.get(name)
    if stored is None and not kind:
        raise UsageError(
            f"--set {key}: there is no such key", f"Give the type of a new one: --set {key}:string=… or {key}:u32=…"
        )
    type_, elem = named_type(kind) if kind or stored is None else (stored.type, stored.elem)
    if stored is not None and (stored.type, stored.elem) != (type_, elem):
        raise UsageError(
            f"--set {text}: {name} is of type {type_word(stored.type, stored.elem)}, which stays",
            f"To change the type, add --remove-key {name}.",
        )
    return name, parse_value(name, word, type_, elem)


def _set(metadata: Metadata, key: str, text: str, usual: str) -> None:
    """Set ``key`` in the type that it has, or else in the ``usual`` one."""
    stored = metadata.values.get(key)
    type_, elem = (usual, "") if stored is None else (stored.type, stored.elem)
    metadata.values[key] = parse_value(key, text, type_, elem)


def _refuse_other_than_utf8(before: Metadata, after: Metadata) -> None:
    """UsageError where what is new in ``after`` has no UTF-8: other bytes of a command line, halves of characters."""
    for key, value in after.values.items():
        old = before.values.get(key)
        texts = [key] if old is None else []
        if value is not old and "STRING" in (value.type, value.elem):
            texts += [value.value] if value.type == "STRING" else value.value
        try:
            for text in texts:
                text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{key!r:.80}: the new key or value is not UTF-8, as all text of a GGUF file is") from None


def _refuse_reserved(key: str) -> None:
    if key in SPLIT_KEYS:
        raise UsageError(f"{key} says how the model is split", "streamconv split and streamconv join change that.")


def _special(name: str) -> str:
    if name not in _SPECIAL:
        raise UsageError(f"there is no special token {name!r}", f"Those that have a key are {', '.join(_SPECIAL)}.")
    return _SPECIAL[name]


def _vocabulary(metadata: Metadata) -> Sequence[str]:
    found = metadata.values.get(_TOKENS)
    if found is None or found.elem != "STRING":
        raise UsageError(f"the file has no vocabulary ({_TOKENS}), so no special tokens")
    return found.value  # type: ignore[no-any-return]


def _found_token(metadata: Metadata, text: str, notes: list[str]) -> int:
    ids = [number for number, token in enumerate(_vocabulary(metadata)) if token == text]
    if not ids:
        raise UsageError(f"the vocabulary has no token {shown(text)}", "--special-token-by-id takes its number.")
    if len(ids) > 1:
        notes.append(
            f"{len(ids)} tokens are {shown(text)}: {ids[0]} is taken (also {', '.join(map(str, ids[1:4]))};"
            " --special-token-by-id takes another)"
        )
    return ids[0]


def _known_id(metadata: Metadata, text: str) -> int:
    n = len(_vocabulary(metadata))
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS and int(text) < n):
        raise UsageError(f"{text!r:.80} is not the number of a token: the vocabulary has {n:,}, from 0 to {n - 1}")
    return int(text)


def _text(path: Path) -> str:
    try:
        return read_small(path, MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 (byte {e.start})") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise BadInput(f"{path} is not JSON: {e}") from None
