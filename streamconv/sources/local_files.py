"""Files of weights on this machine, by their plain names: plain, compressed or packed."""

from __future__ import annotations

from pathlib import Path

from ..file_names import PACK, packed_paths, plain_name
from .frame_cache import FrameCache
from .mapped import IoMode, MappedFile


def open_file(path: Path, io: IoMode = "mmap", cache: FrameCache | None = None) -> MappedFile:
    """Open a file of weights, or its compressed or packed form where only that is there.

    Parameters
    ----------
    cache : of the job; None: one for this file

    Errors: see ``MappedFile``, ``ZstdFile`` and ``PackFile``.
    """
    place = stored_at(path)
    if plain_name(place.name) == place.name:
        return MappedFile(place, io)
    if place.suffix == PACK:
        from .pack import PackFile

        return PackFile(place, io, cache or FrameCache())
    from .zstd import ZstdFile

    return ZstdFile(place, io, cache or FrameCache())


def stored_at(path: Path) -> Path:
    """Where the file of weights ``path`` lies: the path itself, or that of another form of it where only that is there."""
    return path if path.exists() else next((each for each in packed_paths(path) if each.exists()), path)


def twice_there(path: Path) -> str:
    """A note that the file ``path``, which is read, is there in another form too; "" where it is not."""
    others = [each.name for each in packed_paths(path.with_name(plain_name(path.name))) if each.exists()]
    others = [name for name in others if name != path.name]
    return f"{path.name} is read, {' and '.join(others)} beside it is ignored" if others else ""
