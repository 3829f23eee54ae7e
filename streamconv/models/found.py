"""Families are found: whoever adds a file has added a family."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path

from .family import Family


class Families(MutableMapping[str, Family]):
    """Hugging Face architecture -> the ``FAMILY`` of the module in a package that claims it.

    A file is imported when it is asked for an architecture that its text mentions; all are where all are asked for.
    """

    def __init__(self, package: str, path: list[str]) -> None:
        self._package = package
        self._folders = [Path(folder) for folder in path]
        self._left = [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]
        self._found: dict[str, Family] = {}

    def _mention(self, module: str, name: str) -> bool:
        """Whether the file of ``module`` has ``name`` in it, or is not there to be read."""
        texts = (folder / f"{module}.py" for folder in self._folders)
        return any(not text.is_file() or f'"{name}"' in text.read_text("utf-8") for text in texts)

    def _load(self, module: str) -> None:
        family: Family = import_module(f"{self._package}.{module}").FAMILY
        self._left.remove(module)
        for architecture in family.architectures:
            if self._found.setdefault(architecture, family) is not family:
                raise RuntimeError(f"two families claim {architecture}")

    def __getitem__(self, name: str) -> Family:
        """The family of an architecture (KeyError: there is none)."""
        if name not in self._found:
            for module in [m for m in self._left if self._mention(m, name)]:
                self._load(module)
        return self._found[name]

    def __setitem__(self, name: str, family: Family) -> None:
        """Let ``family`` be that of ``name``."""
        self._found[name] = family

    def __delitem__(self, name: str) -> None:
        """Forget the family of ``name``."""
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        """All architectures."""
        for module in list(self._left):
            self._load(module)
        return iter(self._found)

    def __len__(self) -> int:
        """How many there are."""
        return len(list(iter(self)))
