"""The chat template: is there one, and do its tags and blocks close?

Not a Jinja parser: expressions are not read. What it finds (a cut template, a lost ``endif``) is what conversions break.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .finding import Finding
from .subject import Subject

_KEY = "tokenizer.chat_template"
_OPEN = re.compile(r"\{[{%#]")
_CLOSE = {"{{": "}}", "{%": "%}", "{#": "#}"}
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_WORD = re.compile(r"[-+]?\s*(\w+)")
_ENDRAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
#: the longest known has 30 000
_MAX_CHARACTERS = 1 << 20
#: tags that need an end; ``set`` does when it has no ``=``
_BLOCKS = frozenset(
    ["if", "for", "macro", "call", "filter", "block", "generation", "raw", "autoescape", "with", "trans"]
)
_MIDDLE = {"elif": ("if",), "else": ("if", "for")}


def check(subject: Subject) -> Iterator[Finding]:
    """Presence and balance."""
    if not subject.is_text_model or not subject.tokens:
        return
    template = subject.metadata.get(_KEY)
    if template is None:
        yield Finding("note", f"{_KEY} is absent: normal for a base model; chat programs will guess a format", _KEY)
    elif not isinstance(template, str):
        yield Finding("error", f"{_KEY} is not a string", _KEY)
    elif len(template) > _MAX_CHARACTERS:
        yield Finding("warning", f"{_KEY} has {len(template)} characters: it was not checked", _KEY)
    else:
        fault = imbalance(template)
        if fault:
            yield Finding("warning", f"{_KEY} cannot be parsed: {fault}", _KEY)


def imbalance(template: str) -> str:
    """The first tag or block that does not close, in words; empty when all do.

    >>> imbalance("{% if a %}{{ a }}{% endif %}"), imbalance("{% if a %}{{ a }}")
    ('', "'if' of line 1 is never ended")
    """
    at, line, counted = 0, 1, 0
    blocks: list[tuple[str, int]] = []
    while found := _OPEN.search(template, at):
        kind = found[0]
        line, counted = line + template.count("\n", counted, found.start()), found.start()
        end = _end_of_tag(template, found.end(), _CLOSE[kind], strings=kind != "{#")
        if end < 0:
            return f"'{kind}' of line {line} is never closed"
        body, at = template[found.end() : end], end + 2
        if kind == "{%":
            fault = _follow(body, line, blocks)
            if fault:
                return fault
            if blocks and blocks[-1][0] == "raw":
                raw_end = _ENDRAW.search(template, at)
                if not raw_end:
                    break
                blocks.pop()
                at = raw_end.end()
    return f"'{blocks[-1][0]}' of line {blocks[-1][1]} is never ended" if blocks else ""


def _end_of_tag(template: str, at: int, close: str, strings: bool) -> int:
    """Where ``close`` begins, quoted text and nested braces passed over; -1 when it never comes."""
    depth = 0
    while at < len(template):
        if depth == 0 and template.startswith(close, at):
            return at
        c = template[at]
        if strings and c in "'\"":
            text = _STRING.match(template, at)
            if not text:
                return -1
            at = text.end()
            continue
        if strings and c in "{}":
            depth = max(0, depth + (1 if c == "{" else -1))
        at += 1
    return -1


def _follow(body: str, line: int, blocks: list[tuple[str, int]]) -> str:
    """Open, continue or end a block; words when it cannot be."""
    word = _WORD.match(body)
    if not word:
        return f"tag of line {line} is empty"
    name = word[1]
    if name in _BLOCKS or (name == "set" and "=" not in _STRING.sub("", body)):
        blocks.append((name, line))
    elif name in _MIDDLE:
        if not blocks or blocks[-1][0] not in _MIDDLE[name]:
            return f"'{name}' of line {line} is outside {' and '.join(_MIDDLE[name])}"
    elif name.startswith("end"):
        if not blocks or blocks[-1][0] != name.removeprefix("end"):
            return f"'{name}' of line {line} has no block to end"
        blocks.pop()
    return ""
