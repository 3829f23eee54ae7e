"""Fail when a public thing has no docstring, or a kernel's docstring does not say what its arrays are (make lint).

Public is what a reader reaches by public names: modules, functions and classes at a module's top, and the methods of such
classes. Local functions and helpers with a leading underscore speak through their callers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "streamconv"
ARRAYS = ("float32", "uint8", "uint16", "uint64", "int32", "int64", "flat", "as above", "tile", "rows")


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of ``body`` without a leading underscore, and what is public in those classes."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def is_kernel(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether ``node`` is compiled and called from Python."""
    return any(isinstance(d, ast.Name) and d.id == "kernel" for d in node.decorator_list)


def faults(path: Path) -> list[str]:
    """What is wrong with the docstrings of one file."""
    tree = ast.parse(path.read_text())
    found = [] if ast.get_docstring(tree) else [f"{path}: the module has no docstring"]
    for node in public(tree.body):
        text = ast.get_docstring(node)
        if text is None:
            found.append(f"{path}:{node.lineno} {node.name} has no docstring")
        elif is_kernel(node) and not any(word in text for word in ARRAYS):
            found.append(f"{path}:{node.lineno} kernel {node.name} does not say what its arrays hold")
    return found


if __name__ == "__main__":
    problems = [f for p in sorted(PACKAGE.rglob("*.py")) for f in faults(p)]
    print("\n".join(problems) or "docstrings: complete")
    sys.exit(bool(problems))
