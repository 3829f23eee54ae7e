"""Rules of the house that an import or a size can break."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import streamconv

PACKAGE = Path(streamconv.__file__).resolve().parent
#: what each stage folder may import of ours; quant knows no other stage
ALLOWED = {
    "sources": {"rows", "errors", "metadata", "quant", "sources"},
    "models": {"rows", "errors", "metadata", "sources", "models"},
    "quant": {"rows", "errors", "metadata", "quant"},
    "dequant": {"rows", "errors", "sources", "quant", "dequant"},
    "merging": {"rows", "errors", "metadata", "sources", "quant", "merging"},
    "targets": {"rows", "errors", "metadata", "quant", "targets"},
    "engine": {"rows", "errors", "engine"},
}
WRITERS = {
    "pwrite",
    "rename",
    "replace",
    "fsync",
    "fdatasync",
    "posix_fallocate",
    "ftruncate",
    "mkdir",
    "write_text",
    "write_bytes",
}
#: the one seam for writes, and the cache that only deletes what is damaged
MAY_WRITE = {"engine/files.py", "quant/cache.py"}


def imported(path: Path) -> set[str]:
    """First names below ``streamconv`` that the module imports, wherever in the file."""
    found = set()
    package = ("streamconv", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*full, a.name] for a in node.names] if len(full) == 1 else [full]
        elif isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
        else:
            continue
        found |= {n[1] for n in names if n[0] == "streamconv" and len(n) > 1}
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_no_stage_imports_against_the_direction_of_the_data(folder: str) -> None:
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        wrong = imported(path) - ALLOWED[folder]
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_all_writes_go_through_one_file() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if str(path.relative_to(PACKAGE)) in MAY_WRITE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("open", "fdopen"):  # the mode is the first or second argument, or given by name
                modes = [*node.args[:2], *(k.value for k in node.keywords if k.arg == "mode")]
                texts = [m.value for m in modes if isinstance(m, ast.Constant) and isinstance(m.value, str)]
                writes = [t for t in texts if len(t) < 4 and set(t) & set("wax+")]
                where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                assert not writes or where.startswith("cli.py"), f"{where} opens a file for writing"
            if isinstance(node.func, ast.Attribute):
                owner = node.func.value
                is_os = isinstance(owner, ast.Name) and owner.id == "os"
                assert not (is_os and node.func.attr in WRITERS), f"{path.name}:{node.lineno} calls os.{node.func.attr}"
                assert node.func.attr not in ("write_text", "write_bytes"), f"{path.name}:{node.lineno} writes a file"


def test_files_stay_short() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        lines = text.count("\n")
        assert lines <= 450 or "This file is long because" in text, f"{path.relative_to(PACKAGE)} has {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno
                assert length <= 90, f"{path.name}:{node.lineno} {node.name} has {length} lines"


def test_the_public_names_are_what_the_package_says() -> None:
    for name in streamconv.__all__:
        assert getattr(streamconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamconv.nothing
