"""Families are short: ``python tests/models/test_family_lines.py`` prints lines, and lines of code, of each architecture's file."""

from __future__ import annotations

import ast
import statistics
from importlib import import_module
from pathlib import Path

from streamconv.models import families

#: lines of code that the median architecture may have, and lines that any file may have
MEDIAN, MOST = 40, 150
FILES = {
    p.stem: p.read_text("utf-8") for p in sorted(Path(families.__file__).parent.glob("*.py")) if p.stem != "__init__"
}


def code_lines(text: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, described) and ast.get_docstring(node) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and n not in docstrings for n, line in lines)


def architectures() -> dict[str, str]:
    """Hugging Face architecture -> its family file."""
    return {
        architecture: name
        for name in FILES
        if not name.startswith("_")
        for architecture in import_module(f"{families.__name__}.{name}").FAMILY.architectures
    }


def test_half_of_the_architectures_have_a_short_family() -> None:
    assert statistics.median(code_lines(FILES[name]) for name in architectures().values()) <= MEDIAN


def test_no_family_is_long() -> None:
    assert {name: n for name, text in FILES.items() if (n := len(text.splitlines())) > MOST} == {}


if __name__ == "__main__":
    found = architectures()
    counts = {name: (len(FILES[name].splitlines()), code_lines(FILES[name])) for name in found.values()}
    for architecture, name in sorted(found.items(), key=lambda entry: (counts[entry[1]], entry[0])):
        print(f"{architecture:40} {counts[name][0]:4} {counts[name][1]:4} {name}.py")
    for what, several in (
        ("files", list(counts.values())),
        ("architectures", [counts[name] for name in found.values()]),
    ):
        lines, code = zip(*several, strict=True)
        print(
            f"{len(several)} {what}: lines, median {statistics.median(lines):g}, at most {max(lines)}; "
            f"of code {statistics.median(code):g}, at most {max(code)}"
        )
