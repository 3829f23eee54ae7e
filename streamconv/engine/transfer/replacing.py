"""A complete file of the store gives way to another form of it, which has its names from then on.

    MODEL/blobs/KEY.ENDING     the other form
    MODEL/COMMIT/…ENDING       links to it, in place of those to KEY

The other form has its names before the file loses its own, so a kill leaves at least one of them; the same call goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .. import files
from . import owned
from .part import Part
from .transfer import PartialDownload, Transfer


def other_form(root: Path, model: str, key: str, ending: str) -> Path | None:
    """Where the form ``ending`` of the file ``key`` of ``model`` lies in the store ``root``; None where it does not.

    Raises
    ------
    NoPermission : it is not ours
    """
    blobs = root / model / "blobs"
    path = blobs / f"{key}{ending}"
    found = owned.status(path) if owned.look(root, blobs) else None
    return path if found is not None and not found.st_mode & owned.OTHERS_WRITE else None


def is_kept_here(partial: PartialDownload) -> bool:
    """Whether the complete file lies in the store, not elsewhere on this machine."""
    return partial.whole and partial.path.parent == partial.part.home / "blobs"


def replace(transfer: Transfer, partial: PartialDownload, other: Path, ending: str) -> None:
    """Let ``other``, which is complete and durable, take the place of the file and of its names.

    Raises
    ------
    Locked : another process is fetching, or reads the file
    """
    part = partial.part
    with transfer.changed:
        transfer.own(part, even_whole=True)
        for link in [*part.links, *_links(part)]:
            owned.make(part.home, link.parent)
            files.link(other, link.with_name(link.name + ending))
            files.sync_dir(link.parent)
        for link in [*part.links, *_links(part)]:
            files.remove_file(link)
        part.forget_record()
        files.remove_file(part.path)
        files.sync_dir(part.path.parent)
        part.whole = False


def _links(part: Part) -> Iterator[Path]:
    """Names of the file in all commits of its model."""
    for folder, _, names in os.walk(part.home):
        for name in names:
            path = Path(folder, name)
            if path.is_symlink() and os.path.realpath(path) == os.path.realpath(part.path):
                yield path
