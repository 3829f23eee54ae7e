"""YAML as recipes need it: every document with its text, and no key twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import BadInput
from ..sources.hostile_yaml import MAX_YAML_BYTES, Loader, NotYaml, parse_documents
from ..sources.small_files import read_small


class _Loader(Loader):
    """Refuses what plain YAML readers let pass: of two equal keys they keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.constructor.ConstructorError(None, None, "a key is not plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read_documents(path: Path) -> list[tuple[Any, str]]:
    """The documents of a YAML file, each with its own text.

    Raises
    ------
    InputMissing, NoPermission : the file
    BadInput : it is not a regular file in UTF-8, not YAML (names line and column), or holds no document
    """
    raw = read_small(path, MAX_YAML_BYTES)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 (byte {e.start})") from None
    try:
        values, starts = parse_documents(text, _Loader)
    except NotYaml as e:
        raise BadInput(f"{path} {e}") from None
    texts = _texts(text, starts, len(values)) if values else []
    documents = [(value, part) for value, part in zip(values, texts, strict=True) if value is not None]
    if not documents:
        raise BadInput(f"{path} holds no recipe", "A recipe is a YAML mapping with merge_method and models.")
    return documents


def _texts(text: str, starts: list[int], count: int) -> list[str]:
    """``text`` cut at the document marks ``---``; a first document may come without a mark."""
    if len(starts) == count - 1:
        starts = [0, *starts]
    if len(starts) != count:  # marks in odd places: every document gets the whole text
        return [text] * count
    starts = [0, *starts[1:]] if starts else []
    ends = [*starts[1:], len(text)]
    return [text[a:b].removeprefix("---").lstrip("\n") for a, b in zip(starts, ends, strict=True)]
