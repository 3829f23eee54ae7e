"""Fail when a public thing has no docstring, or a kernel's docstring does not say what its arrays are (make lint)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "streamconv"
ARRAYS = ("float32", "uint8", "uint16", "uint64", "int32", "int64", "flat", "as above", "tile", "rows")


def is_kernel(node: ast.FunctionDef) -> bool:
    """Whether ``node`` is compiled and called from Python."""
    return any(isinstance(d, ast.Name) and d.id == "kernel" for d in node.decorator_list)


def faults(path: Path) -> list[str]:
    """What is wrong with the docstrings of one file."""
    tree = ast.parse(path.read_text())
    found = [] if ast.get_docstring(tree) else [f"{path}: the module has no docstring"]
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        text = ast.get_docstring(node)
        if text is None and not node.name.startswith("_"):
            found.append(f"{path}:{node.lineno} {node.name} has no docstring")
        public_kernel = isinstance(node, ast.FunctionDef) and is_kernel(node) and not node.name.startswith("_")
        if public_kernel and not any(word in (text or "") for word in ARRAYS):
            found.append(f"{path}:{node.lineno} kernel {node.name} does not say what its arrays hold")
    return found


if __name__ == "__main__":
    problems = [f for p in sorted(PACKAGE.rglob("*.py")) for f in faults(p)]
    print("\n".join(problems) or "docstrings: complete")
    sys.exit(bool(problems))
