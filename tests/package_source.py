"""The syntax of the package, parsed once for all tests that look at it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import streamconv

PACKAGE = Path(streamconv.__file__).resolve().parent


@cache
def files() -> list[Path]:
    """All modules, sorted."""
    return sorted(PACKAGE.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of one module, which is not to be changed."""
    return ast.parse(path.read_bytes())


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of one module, in the order of ``ast.walk``."""
    return tuple(ast.walk(parsed(path)))
