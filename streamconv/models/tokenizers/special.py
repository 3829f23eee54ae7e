"""Special token ids and the flags that say which of them a loader adds by itself.

What the reference does (gguf-py ``SpecialVocab``), in its order: tokenizer_config.json names the texts,
tokenizer.json's ``added_tokens`` give their ids, config.json fills what is missing; tokenizer.json's post-processor
says what is added around a text, tokenizer_config.json where that is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.hf_config import section
from .files import SPECIAL_KINDS, TokenizerFiles, said, token_id

#: kind -> the middle of its key; "cls" has an id to find but no key
ID_KEYS = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",  # sic
    "pad": "padding",
    "mask": "mask",
    "eot": "eot",
    "eom": "eom",
}
_FLAG_KINDS = ("bos", "eos", "sep")


def id_key(kind: str) -> str:
    """The metadata key of a special token.

    >>> id_key("pad")
    'tokenizer.ggml.padding_token_id'
    """
    return f"tokenizer.ggml.{ID_KEYS[kind]}_token_id"


class SpecialTokens:
    """What the files say about special tokens.

    Parameters
    ----------
    files : the checkpoint's tokenizer files
    end_from_config : config.json goes before the tokenizer for the end of text
    n_tokens : leave out ids from here on; None keeps them, as the reference does for BPE (loaders ignore them)

    Attributes
    ----------
    ids : kind -> id, in the order they are found
    flags : kind -> whether a loader adds it by itself, in the order they are found
    texts : kind -> text
    warnings : contradictions between the files
    """

    def __init__(self, files: TokenizerFiles, n_tokens: int | None, end_from_config: bool = False) -> None:
        self._end = 1 << 32 if n_tokens is None else n_tokens
        self._kinds: tuple[str, ...] = SPECIAL_KINDS
        self.ids: dict[str, int] = {}
        self.flags: dict[str, bool] = {}
        self.warnings: list[str] = []
        config = files.tokenizer_config
        self.texts = {kind: text for kind in SPECIAL_KINDS if (text := files.special_text(kind)) is not None}
        self._named = bool(config)
        if files.tokenizer_head:
            for kind, stand_in in (("bos", "cls"), ("eos", "sep")):
                if not self.texts.get(kind) and stand_in in self.texts:
                    self.texts[kind] = self.texts[stand_in]
            self._post_process(files.tokenizer_head.get("post_processor"))
        self._flags_of(files)
        if end_from_config:
            stated = files.raw_config.get("eos_token_id")
            self._set("eos", section(files.raw_config, "text_config").get("eos_token_id") if stated is None else stated)
        if self._named:
            first = {token.text: token.id for token in reversed(files.added_tokens)}
            for kind in self._kinds:
                self._set(kind, first.get(self.texts.get(kind, "")))
        self._fill(files)
        self._compare(files)

    def write(self, metadata: Metadata) -> None:
        """Add the id keys, then the flags; those that the vocabulary has said itself stay."""
        for kind, index in self.ids.items():
            if kind in ID_KEYS and id_key(kind) not in metadata:
                metadata.u32(id_key(kind), index)
        for kind, flag in self.flags.items():
            if (key := f"tokenizer.ggml.add_{kind}_token") not in metadata:
                metadata.boolean(key, flag)

    def _set(self, kind: str, index: Any) -> None:
        if token_id(index) is None or kind in self.ids:
            return
        if not 0 <= index < self._end:
            self.warnings.append(f"the {kind} token has the id {index}, which is not a token: left out")
        else:
            self.ids[kind] = index

    def _fill(self, files: TokenizerFiles) -> None:
        """What config.json says; a list, as some have of ends, is left to ``ends``, and a negative id means none."""
        nested = section(files.raw_config, "text_config")  # the only one in which the reference looks
        for kind in self._kinds:
            key = f"{kind}_token_id"
            index = files.raw_config.get(key)
            if index is None:
                index = nested.get(key)
            if any(
                token_id(each) is None for each in (index if isinstance(index, list) else [index]) if each is not None
            ):
                raise BadInput(f"{files.called('config.json')}: {key!r} is {said(index)}, not the id of a token")
            self._set(kind, index)

    def _compare(self, files: TokenizerFiles) -> None:
        """Tell of ends that other files say otherwise; what the tokenizer says counts, as in the reference."""
        nested = files.raw_config.get("text_config")
        config = {**(nested if isinstance(nested, Mapping) else {}), **files.raw_config}
        for kind, place, values in (
            ("bos", "config.json", config),
            ("eos", "config.json", config),
            ("eos", "generation_config.json", files.generation_config),
        ):
            stated, chosen = values.get(f"{kind}_token_id"), self.ids.get(kind)
            listed = [token_id(each) for each in (stated if isinstance(stated, list) else [stated])]
            if (
                chosen is not None
                and chosen not in listed
                and any(i is not None and 0 <= i < self._end for i in listed)
            ):
                told = f"{files.called(place)} says that the {kind} token is {said(stated)}"
                self.warnings.append(f"{told}, the tokenizer that it is {chosen}, which is taken")

    def _flags_of(self, files: TokenizerFiles) -> None:
        """tokenizer_config.json's flags, where the post-processor has not spoken."""
        for kind in _FLAG_KINDS:
            flag = files.flag(f"add_{kind}_token")
            if flag is None:
                continue
            if self.flags.setdefault(kind, flag) != flag:
                self.warnings.append(
                    f"tokenizer_config.json says add_{kind}_token {flag}, tokenizer.json does the opposite: "
                    "tokenizer.json is followed"
                )

    def _post_process(self, entry: Any) -> None:
        for step in _steps(entry):
            kind = step.get("type")
            if kind == "ByteLevel":
                self.flags.setdefault("bos", False)
                self.flags.setdefault("eos", False)
            elif kind == "RobertaProcessing":
                self.flags |= {"bos": True, "eos": True, "sep": True}
                for name in ("cls", "sep"):
                    pair = step.get(name)
                    if self._named and isinstance(pair, list) and pair and isinstance(pair[0], str):
                        self.texts.setdefault(name, pair[0])
            elif kind == "TemplateProcessing":
                self._template(_pieces(step.get("single")), _pieces(step.get("pair")))

    def _template(self, single: list[tuple[str, str]], pair: list[tuple[str, str]]) -> None:
        """Read a template's frame: what leads, what trails, and what parts two texts."""
        first = last = None
        if len(single) > 1:
            first, last = (text if kind == "SpecialToken" else None for kind, text in (single[0], single[-1]))
        if first:
            if not self._named:
                self.texts["bos"] = first
            self.flags["bos"] = first in (self.texts.get("bos"), self.texts.get("cls"))
        if last:
            self._end_with(last)
        body = list(pair)
        if body and first and body[0] == ("SpecialToken", first):
            del body[0]
        if body and last and body[-1] == ("SpecialToken", last):
            del body[-1]
        between = body[1:-1]
        if not between or body[0] != ("Sequence", "A") or body[-1] != ("Sequence", "B"):
            return
        parts = {self.texts.get("sep"), self.texts.get("eos")}
        marks = [kind == "SpecialToken" and text in parts for kind, text in between]
        self.flags["sep"] = (marks[0] and not last) or (len(marks) == 2 and marks[1])
        if self.flags["sep"] and self._named and "eos" in self.texts:
            self.texts.setdefault("sep", self.texts["eos"])

    def _end_with(self, last: str) -> None:
        """The template ends texts with ``last``: it is the true eos; the named one ends turns (or messages)."""
        named = self.texts.get("eos")
        if self._named and last != named:
            spare = next((kind for kind in ("eot", "eom") if kind not in self._kinds), None)
            if spare is not None:
                self._kinds += (spare,)
                if named is not None:
                    self.texts[spare] = named
        self.texts["eos"] = last
        self.flags["eos"] = True


def _steps(entry: Any) -> Iterator[Mapping[str, Any]]:
    """A post-processor's steps: itself, or what its ``processors`` list."""
    if isinstance(entry, Mapping):
        steps = entry.get("processors", [entry])
        yield from (step for step in steps if isinstance(step, Mapping)) if isinstance(steps, list) else ()


def _pieces(template: Any) -> list[tuple[str, str]]:
    """A template as ``(SpecialToken | Sequence, id)`` pairs."""
    pieces: list[tuple[str, str]] = []
    for piece in template if isinstance(template, list) else ():
        if isinstance(piece, Mapping):
            for kind, body in piece.items():
                pieces.append((kind, str(body.get("id", "")) if isinstance(body, Mapping) else ""))
    return pieces


def normalizing(normalizer: Any) -> dict[str, bool]:
    """What tokenizer.json's normalizer says of ``lowercase`` and ``strip_accents``, whose keys loaders read; nothing is no key.

    >>> normalizing({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "BertNormalizer", "lowercase": False}]})
    {'lowercase': False}
    """
    if not isinstance(normalizer, Mapping):
        return {}
    kind = normalizer.get("type")
    if kind == "Sequence":
        steps = normalizer.get("normalizers")
        said = [normalizing(step) for step in steps] if isinstance(steps, Iterable) else []
        return {key: value for each in said for key, value in each.items()}
    if kind == "BertNormalizer":
        return {key: normalizer[key] for key in ("lowercase", "strip_accents") if isinstance(normalizer.get(key), bool)}
    return {"lowercase": True} if kind == "Lowercase" else {"strip_accents": True} if kind == "StripAccents" else {}
