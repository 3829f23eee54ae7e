"""Rules of the house that an import or a size can break."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from package_source import PACKAGE, files, nodes

_DATA = {"rows", "errors", "metadata", "file_names"}
#: what each folder and file may import of ours; stages know the data and those before them, the engine no stage
ALLOWED = {
    "errors": set(),
    "threads": {"errors"},
    "workers": {"errors", "threads"},
    "rows": {"workers"},
    "found": {"errors"},
    "flags": {"engine"},
    "units": set(),
    "limits": {"units"},
    "file_names": set(),
    "kernels": {"errors", "limits", "ownership"},
    "metadata": {"errors"},
    "ownership": {"errors"},
    "quant": {*_DATA, "kernels", "threads"},
    "sbs": {"errors", "rows", "quant"},
    "text": {"errors"},
    "kit": {"rows", "workers", "kernels", "errors"},
    "sources": {*_DATA, "quant", "ownership", "kernels"},
    "terminal": set(),
    "progress": {"errors", "terminal", "units"},
    "dequant": {"rows", "errors", "found", "kernels", "kit", "sources"},
    "merging": {*_DATA, "found", "workers", "kernels", "kit", "sources"},
    "models": {*_DATA, "found", "kit", "sources", "quant"},
    "targets": {"errors", "metadata", "file_names", "quant"},
    "forward": {"errors", "metadata", "rows", "threads", "limits", "kit", "quant"},
    "report": {"units", "terminal"},
    "engine": {"rows", "errors", "file_names", "units", "ownership", "threads", "workers"},
    "check": {*_DATA, "sources", "quant", "models"},
    "inspect": {"errors", "metadata", "file_names", "units", "sources", "dequant", "models"},
    "conversion": {
        *_DATA,
        "workers",
        "units",
        "found",
        "flags",
        "kernels",
        "kit",
        "sources",
        "dequant",
        "merging",
        "models",
        "quant",
        "check",
        "targets",
        "engine",
        "forward",
        "report",
    },
    "evaluation": {
        "errors",
        "units",
        "rows",
        "limits",
        "threads",
        "sources",
        "quant",
        "targets",
        "text",
        "forward",
        "engine",
        "conversion",
        "report",
    },
    "settings": {"errors", "flags", "conversion"},
    "packing": {*_DATA, "threads", "progress", "settings", "kernels", "sources", "engine", "conversion"},
    "toolbox": {
        *_DATA,
        "threads",
        "progress",
        "settings",
        "units",
        "sources",
        "models",
        "quant",
        "check",
        "targets",
        "engine",
        "conversion",
    },
    "packs": {"units", "progress", "terminal", "conversion", "engine", "packing"},
    "sizing": {
        "errors",
        "terminal",
        "units",
        "rows",
        "limits",
        "threads",
        "file_names",
        "sources",
        "quant",
        "forward",
        "engine",
        "conversion",
        "evaluation",
        "report",
    },
    "sized": {
        "errors",
        "units",
        "file_names",
        "progress",
        "terminal",
        "forward",
        "engine",
        "conversion",
        "evaluation",
        "sizing",
    },
    "benching": {"errors", "terminal", "quant"},
    "evaluating": {"errors", "units", "progress", "terminal", "quant", "forward", "conversion", "evaluation"},
    "cluster": {"errors", "units", "rows", "workers", "engine", "conversion", "progress"},
    "planned": {"units", "conversion", "packing", "cluster", "progress"},
    "api": {
        "rows",
        "settings",
        "planned",
        "conversion",
        "packing",
        "cluster",
        "engine",
        "progress",
        "evaluation",
        "sizing",
    },
    "commands": {
        "errors",
        "planned",
        "units",
        "file_names",
        "flags",
        "conversion",
        "cluster",
        "engine",
        "progress",
        "terminal",
        "merging",
        "inspect",
        "check",
        "models",
        "benching",
        "evaluating",
        "packing",
        "packs",
        "toolbox",
        "sized",
        "quant",
    },
    "cli": {"errors", "file_names", "limits", "flags", "found", "engine", "commands", "terminal"},
    "__main__": {"cli"},
    "__init__": {"errors", "api", "quant", "packing", "toolbox"},
}
WRITERS = {
    "pwrite",
    "rename",
    "link",
    "symlink",
    "unlink",
    "replace",
    "fsync",
    "fdatasync",
    "copy_file_range",
    "posix_fallocate",
    "fallocate",
    "ftruncate",
    "mkdir",
    "write_text",
    "write_bytes",
}
#: the one seam for writes, copies within the kernel, what only tries, and the cache of kernels, which no job needs
MAY_WRITE = {"engine/files.py", "engine/copying.py", "engine/trials.py", "kernels/cache.py"}


def modules() -> dict[str, Path]:
    """Dotted name below ``streamconv`` -> file; the package itself is ``__init__``."""
    found = {}
    for path in files():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()
#: how ``kernels.load`` is told of a module
KERNELS = re.compile(r"(\.\w+)*\.kernels\.\w+")


@cache
def imported(path: Path) -> set[str]:
    """Our modules that a file imports, anywhere in it and if only for type checkers, and those whose kernels it loads by name."""
    package = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            full = ["streamconv", *package][: len(package) + 2 - node.level] if node.level else []
            full += node.module.split(".") if node.module else []
            if full[0] == "streamconv":
                for alias in node.names:
                    names = [".".join([*full[1:], alias.name]), ".".join(full[1:])]
                    found.add(next((n for n in names if n in MODULES), names[0]))
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("streamconv.") for a in node.names if a.name.startswith("streamconv."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and KERNELS.fullmatch(node.value):
            found.add(node.value[1:])
    return found


def test_every_folder_and_file_has_its_place_among_the_layers() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("place", ALLOWED)
def test_nothing_imports_against_the_direction_of_the_data(place: str) -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == place:
            wrong = {i.split(".")[0] for i in imported(path)} - ALLOWED[place] - {place}
            assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_kernels_that_are_loaded_by_name_are_there_and_none_is_left_over() -> None:
    loaded = {i for path in MODULES.values() for i in imported(path)}
    kernels = {name for name in MODULES if KERNELS.fullmatch(f".{name}")}
    assert {name for name in loaded if KERNELS.fullmatch(f".{name}")} == kernels


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {name: imported(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while done := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in done:
            del left[name]
    while idle := [name for name in left if not any(name in needs for needs in left.values())]:
        for name in idle:
            del left[name]
    assert not left, f"a circle is among {sorted(left)}"


def test_all_writes_go_through_one_file() -> None:
    for path in files():
        if str(path.relative_to(PACKAGE)) in MAY_WRITE:
            continue
        for node in nodes(path):
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


def test_kernels_are_decorated_in_one_place_and_never_with_fastmath() -> None:
    choices = []
    for path in files():
        where = str(path.relative_to(PACKAGE))
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.module == "numba" and where != "kernels/lanes.py":
                taken = {a.name for a in node.names}
                assert not taken & {"jit", "njit", "vectorize", "guvectorize", "prange"}, (
                    f"{where} has decorators of its own"
                )
            pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else []
            given = [*pairs, *((k, k.value) for k in [node] if isinstance(k, ast.keyword) and k.arg == "fastmath")]
            for key, value in given:
                if isinstance(key, ast.keyword) or (isinstance(key, ast.Constant) and key.value == "fastmath"):
                    assert isinstance(value, ast.Constant), f"{where}:{value.lineno} leaves fastmath open"
                    choices.append((where, value.value))
    assert ("kernels/lanes.py", False) in choices
    assert not any(chosen for _, chosen in choices), choices


def test_jobs_know_things_by_number_or_by_themselves_and_not_by_their_addresses() -> None:
    for folder in ("conversion", "engine", "targets"):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            calls = (n for n in nodes(path) if isinstance(n, ast.Call))
            asked = [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "id"]
            assert not asked, f"{path.relative_to(PACKAGE)}:{asked} asks for id()"


def test_files_stay_short() -> None:
    for path in files():
        lines = path.read_text().count("\n")
        assert lines <= 450, f"{path.relative_to(PACKAGE)} has {lines} lines"
        for node in nodes(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno
                assert length <= 90, f"{path.name}:{node.lineno} {node.name} has {length} lines"
