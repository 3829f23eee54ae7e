"""What a compiled kernel depends on."""

from __future__ import annotations

import ast
from pathlib import Path

import streamconv
from streamconv.kernels import cache_stamp

PACKAGE = Path(streamconv.__file__).parent


def package(where: Path, **sources: str) -> Path:
    where.mkdir()
    for name, text in sources.items():
        (where / f"{name}.py").write_text(text)
    return where


def stamp(folder: Path) -> str:
    return cache_stamp.stamp(folder / "kernel.py")


SOURCES = {
    "kernel": "from .search import best\nfrom . import table\n",
    "search": "from .helpers import clamp\n",
    "helpers": "def clamp(v): return v\n",
    "table": "WIDTH = 32\n",
    "other": "",
}


def test_a_kernel_is_made_again_when_anything_it_imports_changes(tmp_path: Path) -> None:
    same = stamp(package(tmp_path / "a", **SOURCES))
    assert stamp(package(tmp_path / "b", **SOURCES)) == same
    for name in ("kernel", "search", "helpers", "table"):
        changed = SOURCES | {name: SOURCES[name] + "# changed\n"}
        assert stamp(package(tmp_path / name, **changed)) != same, name


def test_a_kernel_is_kept_when_a_file_it_does_not_import_changes(tmp_path: Path) -> None:
    same = stamp(package(tmp_path / "a", **SOURCES))
    assert stamp(package(tmp_path / "b", **SOURCES | {"other": "CHANGED = True\n"})) == same


def test_files_that_import_each_other_have_a_stamp(tmp_path: Path) -> None:
    folder = package(tmp_path / "a", kernel="from .search import best\n", search="from .kernel import call\n")
    assert len(stamp(folder)) == 32


def test_imports_are_those_that_python_sees() -> None:
    seen = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                seen += [(path, c) for c in (base.with_suffix(".py"), *(base / f"{n.name}.py" for n in node.names))]
    assert len(seen) > 1000
    found = {path: set(cache_stamp._imported(path)) for path, _ in seen}
    assert all(
        imported in found[path] for path, imported in seen if imported.is_file() and imported.name != "disk_cache.py"
    )
