"""The vocabulary: as many tokens as embedding rows, no text twice, everything beside it of the same length."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BadInput
from ..sources.naming import shown
from .finding import Finding
from .subject import Subject
from .table import pre_tokenizers

_PREFIX = "tokenizer.ggml."
#: tokenizer.ggml.model -> keys without which the loader stops
_NEEDS = {"gpt2": ("merges",), "gemma4": ("merges",), "whitespace": ("merges",), "plamo2": ("token_type",)}
#: pre-tokenizers whose vocabularies have no merges
_WITHOUT_MERGES = ("kimi-k2",)


def check(subject: Subject) -> Iterator[Finding]:
    """Everything under ``tokenizer.ggml`` but the ids of special tokens."""
    model = subject.metadata.get(f"{_PREFIX}model")
    if model in ("none", "no_vocab") or subject.arch == "clip" or not subject.arch:
        return
    if subject.metadata.get("general.type", "model") != "model":
        return
    if not isinstance(model, str):
        yield Finding("error", f"key {_PREFIX}model is missing: the loader finds no vocabulary", f"{_PREFIX}model")
        return
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


def _embedding(subject: Subject) -> Iterator[Finding]:
    name = "token_embd.weight"
    info = subject.tensors.get(name)
    if info is not None and info.shape[0] != len(subject.tokens):
        message = (
            f"{name} has {info.shape[0]} rows, the vocabulary {len(subject.tokens)} tokens: the loader wants them equal"
        )
        yield Finding("error", message, name)
    size = subject.number("vocab_size")
    if size is not None and size != len(subject.tokens):
        key = subject.key("vocab_size")
        yield Finding(
            "warning", f"{key} is {size}, there are {len(subject.tokens)} tokens; the loader goes by the tokens", key
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
    first: dict[str, int] = {}
    twice: list[tuple[int, int, str]] = []
    try:
        for i, text in enumerate(subject.tokens):
            before = first.setdefault(text, i)
            if before != i:
                twice.append((before, i, text))
    except BadInput as e:
        yield Finding("error", e.message, key)
        return
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
