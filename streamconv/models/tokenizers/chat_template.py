"""Chat templates, from the places that may hold them: tokenizer_config.json, chat_template.jinja, chat_template.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ...file_names import MORE_TEMPLATES
from ...metadata import Metadata
from .files import TokenizerFiles

_DEFAULT = "default"


def chat_templates(files: TokenizerFiles, otherwise: str = "", instead: str = "") -> tuple[dict[str, str], list[str]]:
    """Templates by name, the plain one under ``default``, and warnings.

    Where no file has a plain one it is ``otherwise``. With ``instead`` that of tokenizer_config.json does not count, and where no
    other file has one it is ``instead``.

    Of two places that have a template of one name the first in the order above is used, as by the reference; transformers
    uses the second. Where they differ a warning says so.
    """
    named: dict[str, str] = {}
    taken_from: dict[str, str] = {}
    warnings: list[str] = []
    first, *others = _places(files)
    if instead and first[1] is not None:
        warnings.append(
            f"the chat template in {first[0]} is left out, as runtimes cannot parse it: one that they can is written"
        )
    for place, found in others if instead else (first, *others):
        for name, text in by_name(place, found, warnings):
            before = named.setdefault(name, text)
            if before.removesuffix("\n") != text.removesuffix("\n"):
                which = "" if name == _DEFAULT else f" {name!r}"
                warnings.append(
                    f"the chat template{which} in {taken_from[name]} and the one in {place} differ: that of"
                    f" {taken_from[name]} is used"
                )
            taken_from.setdefault(name, place)
    if instead or otherwise:
        named.setdefault(_DEFAULT, instead or otherwise)
    return named, [f"{files.folder}: {warning}" for warning in warnings]


def _places(files: TokenizerFiles) -> Iterator[tuple[str, Any]]:
    """What each place has: a text, a list of objects, or None."""
    yield "tokenizer_config.json", files.tokenizer_config.get("chat_template")
    yield "chat_template.jinja", files.text("chat_template.jinja")
    for name in files.names(f"{MORE_TEMPLATES}/*.jinja"):
        yield name, [{"name": PurePosixPath(name).stem, "template": files.text(name) or ""}]
    yield "chat_template.json", (files.json("chat_template.json") or {}).get("chat_template")


def by_name(place: str, found: Any, warnings: list[str]) -> Iterator[tuple[str, str]]:
    """Names and texts of what is in one place; what is of no use becomes a warning."""
    entries = [{"name": _DEFAULT, "template": found}] if isinstance(found, str) else found
    if entries is not None and not isinstance(entries, list):
        warnings.append(f"chat_template of {place} is neither text nor a list: ignored")
        return
    for entry in entries or ():
        name, text = (entry.get("name"), entry.get("template")) if isinstance(entry, Mapping) else (None, None)
        if text is None and name is not None:
            continue
        if not isinstance(name, str) or not name or not isinstance(text, str):
            warnings.append(f"a chat template of {place} has no name or no text: ignored")
        elif not _is_unicode(text):
            warnings.append(f"the chat template {name!r} of {place} is not valid Unicode: ignored")
        else:
            yield re.sub(r"[^A-Za-z0-9]", "_", name), text


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_chat_templates(templates: Mapping[str, str], metadata: Metadata) -> None:
    """Add the keys: the others by name, their list, then the default one."""
    others = [name for name in templates if name != _DEFAULT]
    for name in others:
        metadata.string(f"tokenizer.chat_template.{name}", templates[name])
    metadata.array("tokenizer.chat_templates", "STRING", others)
    metadata.string("tokenizer.chat_template", templates.get(_DEFAULT, ""))
