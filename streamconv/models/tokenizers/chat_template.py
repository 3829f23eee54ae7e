"""Chat templates: from tokenizer_config.json, chat_template.jinja or chat_template.json, in this order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ...metadata import Metadata
from .files import TokenizerFiles


def chat_templates(files: TokenizerFiles) -> tuple[dict[str, str], list[str]]:
    """Templates by name, the plain one under ``default``, and warnings.

    Without a tokenizer_config.json there are none, as in the reference.
    """
    config = files.tokenizer_config
    if not config:
        return {}, []
    found = config["chat_template"] if "chat_template" in config else _side_templates(files)
    if found is None:
        return {}, []
    named: dict[str, str] = {}
    if isinstance(found, str):
        named["default"] = found
    elif isinstance(found, list):
        for entry in found:
            if isinstance(entry, Mapping) and isinstance(entry.get("template"), str):
                name = re.sub(r"[^A-Za-z0-9]", "_", str(entry.get("name", "")))
                if name:
                    named[name] = entry["template"]
    else:
        return {}, [f"{files.folder}: chat_template is neither text nor a list: ignored"]
    broken = [name for name, text in named.items() if not _is_unicode(text)]
    for name in broken:
        del named[name]
    return named, [f"{files.folder}: the chat template {name!r} is not valid Unicode: ignored" for name in broken]


def _is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_chat_templates(templates: Mapping[str, str], metadata: Metadata) -> None:
    """Add the keys: the others by name, their list, then the default one."""
    others = [name for name in templates if name != "default"]
    for name in others:
        metadata.string(f"tokenizer.chat_template.{name}", templates[name])
    metadata.array("tokenizer.chat_templates", "STRING", others)
    metadata.string("tokenizer.chat_template", templates.get("default", ""))


def _side_templates(files: TokenizerFiles) -> Any:
    plain = files.text("chat_template.jinja")
    if plain is None:
        return (files.json("chat_template.json") or {}).get("chat_template")
    templates = [{"name": "default", "template": plain}]
    for name in files.names("additional_chat_templates"):
        if name.endswith(".jinja"):
            templates.append({"name": PurePosixPath(name).stem, "template": files.text(name) or ""})
    return templates if len(templates) > 1 else plain
