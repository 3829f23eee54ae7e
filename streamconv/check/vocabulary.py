"""The vocabulary: as many tokens as embedding rows, no text twice, everything beside it of the same length."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import BadInput
from ..sources.naming import shown, shown_list
from ..sources.sentencepiece import BYTE_PIECE, SPACE, is_spelling
from .finding import Finding
from .subject import Subject
from .table import pre_tokenizers

_PREFIX = "tokenizer.ggml."
#: tokenizer.ggml.model -> keys without which the loader stops
_NEEDS = {"gpt2": ("merges",), "gemma4": ("merges",), "whitespace": ("merges",), "plamo2": ("token_type",)}
#: what loaders know of tokenizer.ggml.model
_MODELS = ("llama", "bert", "gpt2", "hybriddna", "whitespace", "t5", "rwkv", "plamo2", "gemma4")
_MARKER = re.compile(r"(?=(<[^<>\s]{2,}>|\[/?[A-Z_]{2,}\]))")
#: types of tokens that loaders find in a text before they split it: unknown, control, user-defined
_MATCHED = (2, 3, 4)
#: bytes as byte-level BPE spells them: printable ones are themselves, the others follow on U+0100
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_SPELLED = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(0x100 + n) for n, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)},
}
#: bytes that no text in UTF-8 has
_NEVER = (0xC0, 0xC1, *range(0xF5, 0x100))
#: a vocabulary that lacks more bytes than this is not made of bytes
_FEW = 64
#: pre-tokenizers whose vocabularies have no merges
_WITHOUT_MERGES = ("kimi-k2",)


def check(subject: Subject) -> Iterator[Finding]:
    """Everything under ``tokenizer.ggml`` but the ids of special tokens; of an unknown architecture nothing is an error."""
    for finding in _all(subject):
        yield finding if subject.is_known or finding.severity != "error" else replace(finding, severity="warning")


def _all(subject: Subject) -> Iterator[Finding]:
    model = subject.metadata.get(f"{_PREFIX}model")
    if model in ("none", "no_vocab") or subject.arch == "clip" or not subject.arch:
        return
    if subject.metadata.get("general.type", "model") != "model":
        return
    if model is None and not subject.is_known:
        return  # what loads it may need no vocabulary
    if not isinstance(model, str):
        yield Finding("error", f"key {_PREFIX}model is missing: the loader finds no vocabulary", f"{_PREFIX}model")
        return
    if model not in _MODELS and subject.known is not None:
        yield Finding("error", f"{_PREFIX}model is {shown(model)}, which the loader does not know", f"{_PREFIX}model")
    if not subject.tokens:
        yield Finding("error", f"key {_PREFIX}tokens is missing: the loader requires it", f"{_PREFIX}tokens")
        return
    for name in _NEEDS.get(model, ()):
        if name == "merges" and subject.metadata.get(f"{_PREFIX}pre") in _WITHOUT_MERGES:
            continue
        if _PREFIX + name not in subject.metadata:
            yield Finding("error", f"key {_PREFIX}{name} is missing: a {model} vocabulary needs it", _PREFIX + name)
    yield from _embedding(subject)
    yield from _lengths(subject)
    yield from _texts(subject)
    if model == "gpt2":
        yield from _pre(subject)
        yield from _bytes(subject)
    yield from _spelling(subject, model)
    yield from _markers(subject)


def _embedding(subject: Subject) -> Iterator[Finding]:
    name = "token_embd.weight"
    info = subject.tensors.get(name)
    if info is not None and info.shape[0] != len(subject.tokens):
        message = (
            f"{name} has {info.shape[0]} rows, the vocabulary {len(subject.tokens)} tokens: the loader requires as many"
        )
        yield Finding("error", message, name)
    size = subject.number("vocab_size")
    if size is not None and size != len(subject.tokens):
        key = subject.key("vocab_size")
        yield Finding(
            "warning",
            f"{key} is {size}, there are {len(subject.tokens)} tokens; the loader uses the number of tokens",
            key,
        )


def _lengths(subject: Subject) -> Iterator[Finding]:
    for name in ("scores", "token_type"):
        found = subject.metadata.get(_PREFIX + name)
        if isinstance(found, list) and len(found) != len(subject.tokens):
            message = f"{_PREFIX}{name} has {len(found)} entries for {len(subject.tokens)} tokens"
            # ggml reads the array by token number, whatever its length
            yield Finding("error" if len(found) < len(subject.tokens) else "warning", message, _PREFIX + name)


def _texts(subject: Subject) -> Iterator[Finding]:
    key = f"{_PREFIX}tokens"
    try:
        if len(subject.distinct) == len(subject.texts):
            return
    except BadInput as e:
        yield Finding("warning", f"{e.message}: llama.cpp accepts it, programs that decode it fail", key)
        return
    first: dict[str, int] = {}
    twice = [(first[text], i, text) for i, text in enumerate(subject.texts) if first.setdefault(text, i) != i]
    if twice:
        before, i, text = twice[0]
        more = f" ({len(twice)} such tokens)" if len(twice) > 1 else ""
        yield Finding(
            "error", f"tokens {before} and {i} are both {shown(text)}{more}: the loader aborts the process", key
        )


def _pre(subject: Subject) -> Iterator[Finding]:
    key = f"{_PREFIX}pre"
    pre = subject.metadata.get(key)
    if pre is None:
        yield Finding("warning", f"{key} is absent: the loader splits words by a default that suits few models", key)
    elif pre not in pre_tokenizers():
        yield Finding("error", f"{key} is {shown(str(pre))}: the loader does not know this pre-tokenizer", key)


def _bytes(subject: Subject) -> Iterator[Finding]:
    """Bytes without a token of their own, into which a loader splits what no merge makes."""
    try:
        there = subject.distinct
    except BadInput:
        return  # told by _texts
    missing = [f"0x{byte:02X}" for byte, text in sorted(_SPELLED.items()) if text not in there and byte not in _NEVER]
    if 0 < len(missing) < _FEW:
        message = f"no token is the byte {shown_list(missing)}: the loader drops it from texts"
        yield Finding("note", message, f"{_PREFIX}tokens")


def _types(subject: Subject) -> Sequence[int]:
    """The type of each token, NORMAL where the file says nothing."""
    found = subject.metadata.get(f"{_PREFIX}token_type")
    return found if isinstance(found, list) and len(found) >= len(subject.tokens) else [1] * len(subject.tokens)


def _spelling(subject: Subject, model: str) -> Iterator[Finding]:
    """A vocabulary of one kind under the name of another: a loader looks blanks and bytes up as the kind spells them."""
    key = f"{_PREFIX}model"
    try:
        normal = [text for text, kind in zip(subject.texts, _types(subject), strict=False) if kind in (1, 6)]
    except BadInput:
        return  # told by _texts
    pieces = is_spelling(normal)
    if model == "gpt2" and pieces:
        message = (
            f"{key} is 'gpt2', but tokens are spelled with U+2581 and <0xNN>: the loader drops spaces and newlines"
        )
        yield Finding("warning", message, key)
    if model == "bert" and not any(SPACE in text for text in normal) and any(text.startswith("##") for text in normal):
        message = f"{key} is 'bert', but tokens are spelled with ##: the loader looks for words that begin with U+2581"
        yield Finding("warning", message, key)
    if model == "llama" and not pieces and _is_byte_level(normal):
        message = f"{key} is 'llama', but tokens are spelled as in byte-level BPE: the loader finds no space and no byte tokens"
        yield Finding("warning", message, key)


def _is_byte_level(texts: list[str]) -> bool:
    """Whether there are spaces as byte-level BPE spells them, and none as SentencePiece does."""
    return any("\u0120" in text for text in texts) and not any(
        SPACE in text or BYTE_PIECE.fullmatch(text) for text in texts
    )


def _markers(subject: Subject) -> Iterator[Finding]:
    """Tokens that the chat template spells, of a type that a loader splits like any text."""
    found = (value.value for key, value in subject.metadata.items() if key.startswith("tokenizer.chat_template"))
    spelled = {marker for text in found if isinstance(text, str) for marker in _markers_in(text)}
    try:
        there = spelled & subject.distinct
        split = [
            text
            for text, kind in zip(subject.texts if there else (), _types(subject), strict=False)
            if text in there and kind not in _MATCHED
        ]
    except BadInput:
        return
    if split:
        yield Finding(
            "warning",
            f"the chat template spells {shown_list(split)}, whose type is neither control nor user-defined: the loader splits such"
            " markers like any text",
            "tokenizer.chat_template",
            "marker",
        )


def _markers_in(text: str) -> Iterator[str]:
    """What looks like a token that frames a text: ``<...>``, ``[...]``, without blanks within; one may lie in another.

    >>> list(_markers_in("<start_of_turn> <[INST]> <0x0A> [0] <"))
    ['<start_of_turn>', '<[INST]>', '[INST]']
    """
    return (found[1] for found in _MARKER.finditer(text) if not BYTE_PIECE.fullmatch(found[1]))
