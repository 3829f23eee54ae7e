"""What a compiled kernel depends on."""

from __future__ import annotations

from pathlib import Path

from streamconv.kernels import cache_stamp


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
