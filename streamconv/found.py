"""What is found by its name: modules in folders of ours, and what other packages offer by their entry points.

A file in ``families/`` adds a family, and so does an installed package that says

    [project.entry-points."streamconv.families"]
    AcmeForCausalLM = "acme.convert:FAMILY"

A module, ours or another's, is imported when it is asked for by a name that it answers to, or when all are asked for.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from .errors import UsageError, raise_exhausted

T = TypeVar("T")


class Plugin(NamedTuple):
    """An entry point of another package.

    Attributes
    ----------
    value : where the object is, ``module:attribute``
    package : its name and version
    """

    group: str
    name: str
    value: str
    package: str

    def __str__(self) -> str:
        return f"{self.value} of the package {self.package}"


class Plugins(Generic[T]):
    """What other packages offer in a group of entry points, each a ``kind``."""

    def __init__(self, group: str, kind: type[T]) -> None:
        self.group = group
        self._kind = kind

    def names(self) -> list[str]:
        """The names that they answer to; imports nothing."""
        return [p.name for p in installed(self.group)]

    def get(self, name: str, own: str = "") -> T | None:
        """What is offered by ``name``, None where nothing is; ``own``: what of ours answers to it.

        Raises
        ------
        UsageError : two answer to the name, or the package cannot be imported or offers something else; names it
        """
        offers = [p for p in installed(self.group) if p.name == name]
        if len(offers) + bool(own) > 1:
            known = " and ".join([*([f"{own} of streamconv"] if own else []), *map(str, offers)])
            raise UsageError(
                f"{self.group}: {name!r} is the name of {known}", f"Uninstall {offers[-1].package}, or have it renamed."
            )
        return self._load(offers[0]) if offers else None

    def _load(self, plugin: Plugin) -> T:
        module, _, attribute = plugin.value.partition(":")
        try:
            found = getattr(import_module(module.strip()), attribute.strip())
        except Exception as e:
            raise_exhausted(e)
            raise UsageError(
                f"{self.group}: {plugin.name!r} is {plugin}, which cannot be imported: {type(e).__name__}: {e}",
                f"Update or uninstall {plugin.package}.",
            ) from e
        if not isinstance(found, self._kind):
            raise UsageError(
                f"{self.group}: {plugin.name!r} is {plugin}, which is not a {self._kind.__name__}",
                f"Update or uninstall {plugin.package}.",
            )
        asked = _asked.get()
        if asked is not None:
            asked.add(f"{plugin.group} {plugin.name}: {plugin}")
        return found


class Found(MutableMapping[str, T]):
    """Name -> what a module in a package of ours, or another package, offers by it.

    Parameters
    ----------
    package, path : the package; its last name is that of the group of entry points
    kind : what is offered; a module of ours calls it by the name of this class in capitals
    names : the names that one answers to
    """

    def __init__(self, package: str, path: Iterable[str], kind: type[T], names: Callable[[T], Iterable[str]]) -> None:
        self._package = package
        self._folders = [Path(folder) for folder in path]
        self._attribute = kind.__name__.upper()
        self._names = names
        self._left = [m.name for m in pkgutil.iter_modules(list(path)) if not m.name.startswith("_")]
        self._found: dict[str, T] = {}
        self._homes: dict[str, str] = {}
        self._plugins = Plugins(f"streamconv.{package.rpartition('.')[2]}", kind)

    def _mention(self, module: str, name: str) -> bool:
        """Whether the file of ``module`` has ``name`` in it, or is not there to be read."""
        texts = (folder / f"{module}.py" for folder in self._folders)
        return any(not text.is_file() or f'"{name}"' in text.read_text("utf-8") for text in texts)

    def _load(self, module: str) -> None:
        home = f"{self._package}.{module}"
        found: T = getattr(import_module(home), self._attribute)
        self._left.remove(module)
        for name in self._names(found):
            if self._found.setdefault(name, found) is not found:
                raise RuntimeError(f"{self._homes.get(name)} and {home} are both called {name}")
            self._homes[name] = home

    def __getitem__(self, name: str) -> T:
        """What ``name`` stands for (KeyError: nothing; UsageError: see ``Plugins.get``)."""
        if name not in self._found:
            for module in [m for m in self._left if self._mention(m, name)]:
                self._load(module)
        offered = self._plugins.get(name, self._homes.get(name, ""))
        return self._found[name] if offered is None else offered

    def __setitem__(self, name: str, value: T) -> None:
        """Let ``name`` stand for ``value``."""
        self._found[name] = value

    def __delitem__(self, name: str) -> None:
        """Forget what ``name`` stands for."""
        del self._found[name]

    def home(self, name: str) -> str:
        """Where ``name`` is described: a file in this package, or an object of another; "" where nowhere."""
        offered = [str(plugin) for plugin in installed(self._plugins.group) if plugin.name == name]
        folders = self._homes.get(name, "").split(".")[1:]
        return offered[0] if offered else f"{'/'.join(folders)}.py" if folders else ""

    def ours(self) -> dict[str, T]:
        """What this package itself has, by all names."""
        for module in list(self._left):
            self._load(module)
        return dict(sorted(self._found.items()))

    def there(self) -> list[T]:
        """All that can be had, each once: what cannot be imported, or has the name of another, is passed over."""
        found = list(self.ours().values())
        for name in self._plugins.names():
            try:
                found.append(self[name])
            except UsageError:
                continue
        return list({id(each): each for each in found}.values())

    def __iter__(self) -> Iterator[str]:
        """All names; imports nothing of other packages."""
        return iter(sorted({*self.ours(), *self._plugins.names()}))

    def __len__(self) -> int:
        """How many names there are."""
        return len(list(iter(self)))


_asked: ContextVar[set[str] | None] = ContextVar("asked", default=None)


@contextmanager
def recorded() -> Iterator[set[str]]:
    """What of other packages is asked for meanwhile, with their versions."""
    asked: set[str] = set()
    token = _asked.set(asked)
    try:
        yield asked
    finally:
        _asked.reset(token)


def installed(group: str) -> list[Plugin]:
    """The entry points of ``group`` that packages in the folders of ``sys.path`` have, as these are now; imports none."""
    state = []
    for folder in dict.fromkeys(sys.path):
        try:
            state.append((folder, os.stat(folder or ".").st_mtime_ns))
        except (OSError, ValueError):
            continue
    return [plugin for plugin in _looked(tuple(state)) if plugin.group == group]


@lru_cache(maxsize=1)
def _looked(state: tuple[tuple[str, int], ...]) -> tuple[Plugin, ...]:
    """The same, once for every state of the folders.

    ``importlib.metadata`` would look into every package's files, which takes as long as planning a small model; so a look at those
    that have entry points comes first.
    """
    found: dict[str, list[Plugin]] = {}
    for folder, _ in state:
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")) and _has_ours(os.path.join(folder, name, "entry_points.txt")):
                package, plugins = _entry_points(Path(folder, name))
                found.setdefault(package, plugins)  # the first of a name is the one that is imported
    return tuple(plugin for plugins in found.values() for plugin in plugins)


def _has_ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"[streamconv." in file.read()
    except OSError:
        return False


def _entry_points(folder: Path) -> tuple[str, list[Plugin]]:
    """A package's name, and its entry points of ours."""
    from importlib.metadata import PathDistribution

    package = PathDistribution(folder)
    name = str(package.metadata["Name"] or folder.stem.partition("-")[0])
    called = f"{name} {package.metadata['Version'] or ''}".strip()
    return name.lower().replace("_", "-"), [
        Plugin(e.group, e.name, e.value, called) for e in package.entry_points if e.group.startswith("streamconv.")
    ]
