"""Fail when a docstring is missing, or says what is not so (make lint).

* Every public thing has one: what a reader reaches by public names, that is modules, functions and classes at a module's top,
  and the methods of such classes. Local functions and helpers with a leading underscore speak through their callers.
* The parameters and attributes it lists are there, and the errors it lists exist.
* A kernel's names every argument, and what its arrays hold: neither types nor checks would tell a caller.

Comments, strings and the pages of ``docs/`` are searched as well, for idioms that are not plain technical English (``IDIOMS``).
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "streamconv"
#: where idioms are looked for besides the package
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*.py"))]
#: in technical English: "is not one", "last", "cleanly", "again", "the caller", "no reader", "another user", "does not matter" …
IDIOMS = re.compile(
    r"(?<!there )\b(?:is|are|was|were) (?-i:none)\b|\bat last\b|\bstop\w* in order\b|\banew\b|\bwhoever\b"
    r"|\b(?:no|some|any|every)body\b|\bof no account\b|\bas (?:it|they) lies?\b|\bvouch\w*",
    re.IGNORECASE,
)
ARRAYS = ("float32", "uint8", "uint16", "uint64", "int32", "int64", "flat", "as above", "tile", "rows")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def errors() -> set[str]:
    """Names of the classes of Python and of the package."""
    python = {name for name, value in vars(builtins).items() if isinstance(value, type)}
    trees = (ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py"))
    return python | {n.name for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}


def named(body: list[ast.stmt], public: bool = False) -> Iterator[Function | ast.ClassDef]:
    """Functions and classes of ``body``, and what is in those classes; only public ones where asked for."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not (public and node.name.startswith("_")):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from named(node.body, public)


def is_kernel(node: Function | ast.ClassDef) -> bool:
    """Whether ``node`` is compiled and called from Python."""
    return any(isinstance(d, ast.Name) and d.id == "kernel" for d in node.decorator_list)


def section(text: str, title: str) -> list[str]:
    """The names that a section of a docstring lists: ``a, b : what they are``."""
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n|\n\w+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^(\w[^:\n]*?)(?: :|$)", found[1], re.MULTILINE) if found else []
    return [name.strip("* ") for head in heads for name in head.split(",")]


def arguments(node: Function) -> set[str]:
    """Names of all parameters."""
    a = node.args
    return {arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))}


def attributes(node: ast.ClassDef) -> set[str]:
    """What instances have by name, as far as the class itself says so."""
    stored = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute) and isinstance(n.ctx, ast.Store)]
    methods = {n.name for n in node.body if isinstance(n, Function)}
    return methods | {n.id if isinstance(n, ast.Name) else n.attr for n in stored}


def untrue(node: Function | ast.ClassDef, text: str) -> Iterator[str]:
    """What the docstring lists and is not there."""
    if isinstance(node, ast.ClassDef):
        makers = [n for n in node.body if isinstance(n, Function) and n.name == "__init__"]
        there = arguments(makers[0]) if makers else attributes(node)
        yield from (f"parameter {name}" for name in section(text, "Parameters") if name not in there)
        yield from (f"attribute {name}" for name in section(text, "Attributes") if name not in attributes(node))
    else:
        yield from (f"parameter {name}" for name in section(text, "Parameters") if name not in arguments(node))
    for name in section(text, "Raises"):
        if re.fullmatch(r"[A-Z]\w+", name) and name not in errors():
            yield f"error {name}"


def faults(path: Path) -> Iterator[str]:
    """What is wrong with the docstrings of one file."""
    tree = ast.parse(path.read_text())
    if not ast.get_docstring(tree):
        yield f"{path}: the module has no docstring"
    needed = set(named(tree.body, public=True))
    for node in named(tree.body):
        where, text = f"{path}:{node.lineno} {node.name}", ast.get_docstring(node)
        if text is None:
            if node in needed:
                yield f"{where} has no docstring"
            continue
        yield from (f"{where} describes the {what}, which is not there" for what in untrue(node, text))
        if is_kernel(node) and not isinstance(node, ast.ClassDef):
            if not any(word in text for word in ARRAYS):
                yield f"{where} is a kernel and does not say what its arrays hold"
            silent = [name for name in sorted(arguments(node)) if not re.search(rf"\b{name}\b", text)]
            if silent and "as above" not in text and "as below" not in text:
                yield f"{where} is a kernel and says nothing of {', '.join(silent)}"


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the words in a file: comments and strings of a module, every line of a page."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    with path.open("rb") as file:
        yield from ((t.start[0], t.string) for t in tokenize.tokenize(file.readline) if t.type in kinds)


def idioms(path: Path) -> Iterator[str]:
    """Idioms in the words of one file, with the line where the text begins."""
    if not IDIOMS.search(path.read_text()):  # what is in no line is in no word, and most files need not be taken apart
        return
    for line, text in prose(path):
        yield from (f"{path}:{line} says {found[0]!r}" for found in IDIOMS.finditer(text))


if __name__ == "__main__":
    sources = sorted(PACKAGE.rglob("*.py"))
    problems = [f for p in sources for f in faults(p)] + [f for p in [*sources, *PAGES] for f in idioms(p)]
    print("\n".join(problems) or "docstrings: complete")
    sys.exit(bool(problems))
