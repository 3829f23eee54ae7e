"""What a compiled kernel was made from: its own file and every file of this package that it imports, directly or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import xxhash

#: what keeps the kernels is no part of them
_KEEPER = Path(__file__).resolve().with_name("disk_cache.py")
# Parsing took a tenth of the time that a small conversion takes. What only looks like an import, in a text, adds a file at most.
_RELATIVE_IMPORT = re.compile(r"^[ \t]*from[ ]+(\.+)([\w.]*)[ ]+import[ ]+(\([^)]*\)|[^\n]*)", re.MULTILINE)
_NAME = re.compile(r"\w+")


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
    for dots, module, names in _RELATIVE_IMPORT.findall(path.read_text("utf-8", errors="replace")):
        base = path.parents[len(dots) - 1].joinpath(*module.split("."))
        for candidate in (base.with_suffix(".py"), *(base / f"{name}.py" for name in _NAME.findall(names))):
            if candidate.is_file() and candidate != _KEEPER:
                yield candidate
