"""YAML as recipes need it: every document with its text, and no key twice."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml

from ..errors import BadInput, InputMissing, NoPermission


class _Loader(yaml.SafeLoader):
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
    BadInput : it is not UTF-8, not YAML (names line and column), or holds no document
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"{path} is not there") from None
    except PermissionError:
        raise NoPermission(f"{path} may not be read") from None
    except OSError as e:
        raise BadInput(f"{path} cannot be read: {e.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 (byte {e.start})") from None
    try:
        starts = [token.start_mark.index for token in yaml.scan(text) if isinstance(token, yaml.DocumentStartToken)]
        values = list(yaml.load_all(io.StringIO(text), Loader=_Loader))
    except RecursionError:
        raise BadInput(f"{path}: nests too deep") from None
    except (yaml.YAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadInput(f"{path} is not valid YAML{at}: {getattr(e, 'problem', None) or e}") from None
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
