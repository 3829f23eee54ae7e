"""What a compiled kernel was made from: its own file and every file of this package that it imports, directly or not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import xxhash

#: what keeps the kernels is no part of them
_KEEPER = Path(__file__).resolve().with_name("disk_cache.py")


@cache
def stamp(source: Path) -> str:
    """A digest of ``source`` and of all that it imports from its own package, hex."""
    found: set[Path] = set()
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imported(path))
    digest = xxhash.xxh3_128()
    for path in sorted(found):
        digest.update(path.read_bytes())
    return str(digest.hexdigest())


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    return tuple(_relative_imports(path))


def _relative_imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for candidate in (base.with_suffix(".py"), *(base / f"{n.name}.py" for n in node.names)):
                if candidate.is_file() and candidate != _KEEPER:
                    yield candidate
