"""The folder in which fetched models are kept.

Beside what ``transfer`` writes there are small records, whose meaning is known to the code that fetches:

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

from ...errors import CannotCreate, NoPermission, raise_exhausted
from .. import files
from . import owned
from .shared import Observer, Origin, Settings
from .transfer import Transfer

#: a listing of as many files as the hub is asked for has a third of it
_MAX_RECORD_BYTES = 256 << 20


def writable_root(beside: Path) -> tuple[Path, str]:
    """Where fetched models are kept, and a note when that is not the usual place.

    STREAMCONV_CACHE, else ``streamconv/models`` in the user's cache (XDG_CACHE_HOME), else, where that cannot be written or
    others can write to it, a folder in ``beside``. The first two may be links that this user made. A relative name would be
    another folder in each working folder, and in a hostile one not ours: it does not count.

    Raises
    ------
    NoPermission : others can write to STREAMCONV_CACHE
    """
    named = os.environ.get("STREAMCONV_CACHE", "")
    relative = "" if not named or Path(named).is_absolute() else f"STREAMCONV_CACHE is {named}, not an absolute path"
    if named and not relative:
        root, fault = _followed(Path(named))
        if fault:
            raise NoPermission(f"STREAMCONV_CACHE: {fault}", owned.HINT)
        return root, ""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    usual = Path(cache) / "streamconv" / "models"
    why = f"{usual} is not writable"
    try:
        if not usual.is_absolute():
            raise CannotCreate("there is no home folder")
        files.make_dirs(usual.parent)
        files.make_dir(usual, owned.FOLDER_MODE)
        root, fault = _followed(usual)
        why = fault or why
        if not fault and os.access(root, os.W_OK | os.X_OK):
            return root, f"{relative}: downloads are kept in {root}" if relative else ""
    except (CannotCreate, NoPermission, OSError) as e:
        raise_exhausted(e)
    other = beside.absolute() / ".streamconv-models"
    return other, f"{why}: downloads are kept in {other}"


def _followed(root: Path) -> tuple[Path, str]:
    """Where a store lies that may be a link of this user's own, and why it must not be used, if so."""
    try:
        made_by = os.lstat(root).st_uid
    except OSError:
        return root, ""
    if root.is_symlink() and made_by in (os.geteuid(), 0):
        root = Path(os.path.realpath(root))
    try:
        files.require_own_dir(root)
    except NoPermission as e:
        return root, e.message
    return root, ""


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
        """The record ``names``; None when it is not there, damaged, or open to others' writes, which costs asking again.

        Raises
        ------
        NoPermission : another user has put it there, or can replace it
        """
        path = self.root.joinpath(*names)
        if not owned.look(self.root, path.parent):
            return None
        try:
            value = json.loads(owned.read_small(path, _MAX_RECORD_BYTES) or b"null")
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def save(self, record: Mapping[str, Any], *names: str) -> None:
        """Keep ``record`` durably under ``names``."""
        path = self.root.joinpath(*names)
        owned.make(self.root, path.parent)
        files.write_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n", owned.FILE_MODE)

    def folder(self, model: str, commit: str) -> Path:
        """Where the complete files of a commit are found by their names."""
        return self.root / model / commit

    def transfer(self, origin: Origin, observer: Observer, *, keep: bool = True, cached: bool = True) -> Transfer:
        """A transfer into this folder; for ``keep`` and ``cached`` see ``Settings``."""
        return Transfer(self.root, origin, observer, replace(self.settings, keep=keep, cached=cached))
