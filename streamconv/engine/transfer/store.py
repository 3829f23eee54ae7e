"""The folder in which fetched models are kept.

Beside what ``transfer`` writes there are small records, whose meaning is the business of whoever fetches:

    MODEL/refs/REVISION.json     which commit a branch or tag meant when it was first asked for
    MODEL/listings/COMMIT.json   the files of a commit with sizes and digests
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import CannotCreate, NoPermission
from .. import files
from .shared import Observer, Origin, Settings
from .transfer import Transfer


def writable_root(beside: Path) -> tuple[Path, str]:
    """Where fetched models are kept, and a note when that is not the usual place.

    STREAMCONV_CACHE, else ``streamconv/models`` in the user's cache (XDG_CACHE_HOME), else, where neither can be written,
    a folder in ``beside``.
    """
    named = os.environ.get("STREAMCONV_CACHE")
    if named:
        return Path(named).absolute(), ""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    usual = Path(cache) / "streamconv" / "models"
    try:
        if not usual.is_absolute():
            raise CannotCreate("there is no home folder")
        files.make_dirs(usual)
        if os.access(usual, os.W_OK | os.X_OK):
            return usual, ""
    except (CannotCreate, NoPermission, OSError):
        pass
    other = beside.absolute() / ".streamconv-models"
    return other, f"{usual} cannot be written: what is fetched is kept in {other}"


class Store:
    """A folder of fetched models.

    Parameters
    ----------
    root : created when something is written
    settings : of the transfers begun here
    """

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self.root = root
        self.settings = settings or Settings()

    def load(self, *names: str) -> dict[str, Any] | None:
        """The record ``names``; None when it is not there, or damaged, which costs asking again."""
        try:
            value = json.loads(self.root.joinpath(*names).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def save(self, record: Mapping[str, Any], *names: str) -> None:
        """Keep ``record`` durably under ``names``."""
        path = self.root.joinpath(*names)
        files.make_dirs(path.parent)
        files.write_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n")

    def folder(self, model: str, commit: str) -> Path:
        """Where the complete files of a commit are found by their names."""
        return self.root / model / commit

    def transfer(self, origin: Origin, observer: Observer, *, keep: bool = True, cached: bool = True) -> Transfer:
        """A transfer into this folder; for ``keep`` and ``cached`` see ``Settings``."""
        return Transfer(self.root, origin, observer, replace(self.settings, keep=keep, cached=cached))
