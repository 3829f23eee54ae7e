"""YAML from untrusted files: what it takes is counted while it is read.

A line of YAML can stand for a million others: an alias repeats what an anchor names, a merge key copies it, and each may hold
more of them. So an alias counts for all that it repeats, and the text ends where it has counted for too much. Recipes and model
cards come to a twentieth of what is allowed.
"""

from __future__ import annotations

from typing import Any

import yaml

#: cards with the results of a hundred benchmarks have 300 000 bytes and 15 000 values
MAX_YAML_BYTES = 1 << 20
_MAX_VALUES, _MAX_DEPTH = 40_000, 60
#: characters and values with all aliases replaced by what they repeat
_MAX_EXPANDED = 2 << 20
_MAX_DIGITS = 300
#: what a value counts for beside its characters
_VALUE = 8


class NotYaml(ValueError):
    """What is wrong with a text, as the end of a sentence about it: "is not valid YAML"."""


class Loader(yaml.SafeLoader):
    """Reads documents and counts.

    Attributes
    ----------
    starts : where in the text the marks ``---`` are
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.starts: list[int] = []
        self._values = self._expanded = self._depth = 0
        self._weights: dict[str, int] = {}

    def compose_document(self) -> yaml.Node | None:
        """The next document."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if event.explicit:
            self.starts.append(event.start_mark.index)
        self._weights.clear()
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next value, and those in it."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        self._values += 1
        before = self._expanded
        is_alias, is_text = isinstance(event, yaml.AliasEvent), isinstance(event, yaml.ScalarEvent)
        if is_alias:
            if event.anchor in self.anchors and event.anchor not in self._weights:
                raise NotYaml(f"has a value that contains itself, at line {event.start_mark.line + 1}")
            self._expanded += self._weights.get(event.anchor, 0)
        else:
            self._expanded += len(event.value) if is_text else 0
        self._expanded += _VALUE
        if self._depth > _MAX_DEPTH:
            raise NotYaml("nests too deep")
        if self._values > _MAX_VALUES or self._expanded > _MAX_EXPANDED:
            raise NotYaml("describes more than any recipe or model card does")
        node = super().compose_node(parent, index)
        if event.anchor is not None:
            self._weights.setdefault(event.anchor, self._expanded - before)
        self._depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Text; a number is refused that has more digits than any calculation can take."""
        value = super().construct_scalar(node)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(value) > _MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number has {len(value)} characters", node.start_mark
            )
        return value


def parse_documents(text: str, loader: type[Loader] = Loader) -> tuple[list[Any], list[int]]:
    """The values of all documents in ``text``, and where the marks between them are.

    Raises
    ------
    NotYaml : it is not YAML (names line and column), or would take more time and memory than a file of a model does
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_YAML_BYTES:
        raise NotYaml(f"has {size} bytes, over the limit of {MAX_YAML_BYTES}")
    try:
        reader = loader(text)
        values = []
        while reader.check_data():  # type: ignore[no-untyped-call]
            values.append(reader.get_data())
        return values, reader.starts
    except (NotYaml, MemoryError):
        raise
    except RecursionError:
        raise NotYaml("nests too deep") from None
    except Exception as e:  # a damaged value of a named type makes the library stumble in many ways
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join((getattr(e, "problem", None) or str(e)).split())
        if not isinstance(e, (yaml.YAMLError, ValueError)):
            what = f"a value is not what its tag says ({type(e).__name__})"
        raise NotYaml(f"is not valid YAML{at}: {what}") from None
