"""Every text that a user can see, to be read as a whole: ``python tests/messages.py``.

A text is a string of two words or more that is not a docstring, and every string given to an error class; ``{}`` stands for what
is filled in. Each is listed with its place and with what takes it, most often an error class, ``help`` or ``note``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from package_source import PACKAGE, files, parsed


def error_names() -> set[str]:
    """Names of the package's error classes."""
    tree = parsed(PACKAGE / "errors.py")
    return {n.name for n in tree.body if isinstance(n, ast.ClassDef)}


def template(node: ast.expr) -> str | None:
    """The text of a string or f-string with ``{name}`` for what is filled in; None for any other expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(v.value) if isinstance(v, ast.Constant) else "{" + ast.unparse(v.value) + "}"  # type: ignore[attr-defined]
            for v in node.values
        )
    return None


def docstrings(tree: ast.AST) -> set[int]:
    """``id`` of the nodes that are docstrings, or strings that stand alone as comments."""
    return {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}


def texts(node: ast.AST, taker: str, skip: set[int], errors: set[str]) -> Iterator[tuple[int, str, str]]:
    """(line, what takes it, text) of every text below ``node``."""
    if isinstance(node, ast.expr) and (text := template(node)) is not None:
        words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\{[^}]*\}", "x", text))
        if id(node) not in skip and (taker in errors or (" " in text.strip() and len(words) > 1)):
            yield node.lineno, taker, text
        if isinstance(node, ast.JoinedStr):
            for value in node.values:
                if isinstance(value, ast.FormattedValue):
                    yield from texts(value.value, "{}", skip, errors)
        return
    if isinstance(node, ast.Call):
        taker = ast.unparse(node.func).rpartition(".")[2]
    for child in ast.iter_child_nodes(node):
        below = child.arg if isinstance(child, ast.keyword) and child.arg else taker
        yield from texts(child, taker if isinstance(node, ast.Call) and taker in errors else below, skip, errors)


def all_texts() -> Iterator[tuple[str, int, str, str]]:
    """(file, line, what takes it, text) of the whole package."""
    errors = error_names()
    for path in files():
        tree = parsed(path)
        for line, taker, text in texts(tree, "", docstrings(tree), errors):
            yield str(path.relative_to(PACKAGE)), line, taker, text


if __name__ == "__main__":
    for file, line, taker, text in all_texts():
        print(f"{file}:{line} [{taker}] {text!r}")
