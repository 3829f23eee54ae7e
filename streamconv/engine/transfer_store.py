"""The folder in which fetched models are kept, one subfolder per model.

    ORG--NAME/
        lock                  who is fetching into it
        refs/REV.json         which commit a branch or tag meant when it was first asked for
        listings/COMMIT.json  the files of a commit with sizes and digests
        blobs/                the bytes; see ``transfer_part``
        COMMIT/…              the files by their names: links to blobs that are complete

Several commits share blobs. The meaning of the two kinds of JSON is the business of whoever fetches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CannotCreate, NoPermission
from . import files
from .transfer import Observer, Origin, Settings, Transfer
from .transfer_part import Remote


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

    def transfer(
        self,
        model: str,
        commit: str,
        remotes: Sequence[Remote],
        origin: Origin,
        observer: Observer,
        *,
        present: Mapping[str, Path],
        keep: bool = True,
        cached: bool = True,
    ) -> Transfer:
        """Look at what is here of ``remotes``, ready to fetch the rest.

        Parameters
        ----------
        present : files that lie elsewhere on this machine and are only read
        keep : see ``Settings.keep``
        cached : see ``Settings.cached``
        """
        folder = self.folder(model, commit)
        linking = _Linking(folder, observer)
        settings = replace(self.settings, keep=keep, cached=cached)
        transfer = Transfer(self.root / model / "blobs", remotes, origin, linking, settings, present)
        with suppress(NoPermission, CannotCreate):  # names are for people; a cache that is only read may lack some
            for name, part in transfer.parts.items():
                if part.whole:
                    linking.link(name, part.path)
        return transfer


class _Linking:
    """Passes on what an observer is told, and gives whole files their names."""

    def __init__(self, folder: Path, inner: Observer) -> None:
        self._folder, self._inner = folder, inner

    def came(self, n_bytes: int, path: str) -> None:
        self._inner.came(n_bytes, path)

    def message(self, text: str) -> None:
        self._inner.message(text)

    def whole(self, path: str, where: Path) -> None:
        self.link(path, where)
        self._inner.whole(path, where)

    def link(self, path: str, where: Path) -> None:
        link = self._folder / path
        if not link.exists():
            files.make_dirs(link.parent)
            files.link(where, link)
