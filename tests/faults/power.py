"""Power cuts without cutting power: a job's calls are written down, and of them any state is made that a disk may be left in.

    with recording(root) as calls:      # what happens below the folder root
        main([...])
    disk = Disk(root_as_it_was)
    for call in calls: disk.take(call)  # up to the moment of the cut
    disk.leave(root, rng)               # one of the states that are possible then

What a cut may do
-----------------
data   what was written to a file after its last sync is there or not, each sector of 512 bytes for itself; where a file had not
       reached before, a sector that is not there may hold rubbish
names  a name that was made, moved or removed is so for good once its folder was synced; of the other changes any may be there,
       or, as in a journal, the first few of them
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamconv import ownership
from streamconv.engine import copying, fallocate, files, renames

SECTOR = 512
#: name of a method of ``Disk`` and its arguments
Call = tuple[Any, ...]


class File:
    """Bytes that are durable, and what came since: pieces with their offsets, or a new length."""

    def __init__(self, data: bytes = b"") -> None:
        self.durable = bytearray(data)
        self.since: list[tuple[int, bytes] | int] = []

    def sync(self) -> None:
        for change in self.since:
            _apply(self.durable, change)
        self.since.clear()

    def after_a_cut(self, rng: random.Random) -> bytes:
        data = bytearray(self.durable)
        for change in self.since:
            share = rng.choice((0.0, 0.5, 1.0))
            if isinstance(change, int) or share == 1.0:
                if share:
                    _apply(data, change)
                continue
            offset, piece = change
            for at in range(offset - offset % SECTOR, offset + len(piece), SECTOR):
                a, b = max(at, offset), min(at + SECTOR, offset + len(piece))
                if rng.random() < share:
                    _apply(data, (a, piece[a - offset : b - offset]))
                elif a >= len(self.durable) and share and rng.random() < 0.1:
                    _apply(data, (a, rng.randbytes(b - a)))
        return bytes(data)


def _apply(data: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        data.extend(bytes(max(0, change - len(data))))
        del data[change:]
    else:
        offset, piece = change
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(piece)] = piece


class Folder:
    """Names as they are now, and as they are for good."""

    def __init__(self) -> None:
        self.now: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}


#: a string is where a symbolic link leads
Node = File | Folder | str
#: names that change together: each is set, or removed
Change = list[tuple[Folder, str, Node | None]]


class Disk:
    """A folder as it would be after a power cut.

    Parameters
    ----------
    root : its content is durable
    """

    def __init__(self, root: Path) -> None:
        self._changes: list[Change] = []
        self._files: dict[int, File] = {}
        self._top = self._durable(root)
        assert isinstance(self._top, Folder)

    def _durable(self, path: Path) -> Node:
        if path.is_symlink():
            return os.readlink(path)
        if path.is_file():
            return File(path.read_bytes())
        folder = Folder()
        folder.now = {p.name: self._durable(p) for p in path.iterdir()}
        folder.durable = dict(folder.now)
        return folder

    def copy(self) -> Disk:
        """One that goes on from here by itself."""
        return copy.deepcopy(self)

    def take(self, call: Call) -> None:
        """One more call happened."""
        getattr(self, call[0])(*call[1:])

    def _folder(self, parts: tuple[str, ...]) -> Folder:
        found: Node = self._top
        for name in parts:
            assert isinstance(found, Folder)
            found = found.now[name]
        assert isinstance(found, Folder)
        return found

    def _place(self, path: Path) -> tuple[Folder, str]:
        return self._folder(path.parts[:-1]), path.name

    def _change(self, *change: tuple[Folder, str, Node | None]) -> None:
        for folder, name, node in change:
            _rename(folder.now, name, node)
        self._changes.append(list(change))

    # The calls.

    def open(self, handle: int, path: Path) -> None:
        folder, name = self._place(path)
        if name not in folder.now:
            self._change((folder, name, File()))
        node = folder.now[name]
        assert isinstance(node, File)
        self._files[handle] = node

    def write(self, handle: int, offset: int, data: bytes) -> None:
        self._files[handle].since.append((offset, data))

    def resize(self, handle: int, size: int) -> None:
        self._files[handle].since.append(size)

    def sync(self, handle: int) -> None:
        self._files[handle].sync()

    def sync_folder(self, path: Path) -> None:
        touched, durable = {id(self._folder(path.parts))}, []
        for change in reversed(self._changes):  # a change of two folders brings those before it along
            if any(id(folder) in touched for folder, _, _ in change):
                touched |= {id(folder) for folder, _, _ in change}
                durable.append(change)
        for change in reversed(durable):
            for folder, name, node in change:
                _rename(folder.durable, name, node)
            self._changes.remove(change)

    def rename(self, old: Path, new: Path) -> None:
        (a, name_a), (b, name_b) = self._place(old), self._place(new)
        self._change((a, name_a, None), (b, name_b, a.now[name_a]))

    def exchange(self, old: Path, new: Path) -> None:
        (a, name_a), (b, name_b) = self._place(old), self._place(new)
        self._change((a, name_a, b.now[name_b]), (b, name_b, a.now[name_a]))

    def link(self, old: Path, new: Path) -> None:
        folder, name = self._place(old)
        self._change((*self._place(new), folder.now[name]))

    def make(self, path: Path, node: str | None = None) -> None:
        """A folder, or a link that leads to ``node``."""
        self._change((*self._place(path), Folder() if node is None else node))

    def remove(self, path: Path) -> None:
        self._change((*self._place(path), None))

    def leave(self, root: Path, rng: random.Random) -> None:
        """Let the content of ``root`` be what a cut leaves."""
        if rng.random() < 0.5:
            kept = self._changes[: rng.randint(0, len(self._changes))]
        else:
            share = rng.choice((0.0, 0.5, 1.0))
            kept = [c for c in self._changes if rng.random() < share]
        names: dict[int, dict[str, Node]] = {}
        for change in kept:
            for folder, name, node in change:
                _rename(names.setdefault(id(folder), dict(folder.durable)), name, node)
        if root.exists():
            shutil.rmtree(root)
        self._write(root, self._top, names, rng)

    def _write(self, path: Path, node: Node, names: dict[int, dict[str, Node]], rng: random.Random) -> None:
        if isinstance(node, str):
            path.symlink_to(node)
        elif isinstance(node, File):
            path.write_bytes(node.after_a_cut(rng))
        else:
            path.mkdir()
            for name, child in names.get(id(node), node.durable).items():
                self._write(path / name, child, names, rng)


def _rename(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


class _Recorder:
    """Stands in for ``os`` and ``shutil`` in ``engine/files.py``: does what it is told and writes it down."""

    def __init__(self, root: Path) -> None:
        self.calls: list[Call] = []
        self._root = root
        self._lock = threading.Lock()
        self._n_handles = 0
        self._handles: dict[int, int] = {}
        self._folders: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _below(self, path: Any) -> Path | None:
        path = Path(path)
        return path.relative_to(self._root) if path.is_relative_to(self._root) else None

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        with self._lock:
            fd = os.open(path, flags, mode)
            self._handles.pop(fd, None)
            self._folders.pop(fd, None)
            below = self._below(path)
            if below is not None and flags & os.O_RDWR:
                self._n_handles += 1
                self._handles[fd] = self._n_handles
                self.calls.append(("open", self._n_handles, below))
            elif below is not None:
                self._folders[fd] = below
            return fd

    def _log_file(self, name: str, fd: int, *args: Any) -> None:
        if fd in self._handles:
            self.calls.append((name, self._handles[fd], *args))

    def copy_file_range(self, source: int, fd: int, length: int, start: int, offset: int) -> int:
        """What the system copies is as durable as what it is told to write."""
        return self.pwrite(fd, os.pread(source, length, start), offset)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        with self._lock:
            n = os.pwrite(fd, data, offset)
            self._log_file("write", fd, offset, bytes(memoryview(data)[:n]))
            return n

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        with self._lock:
            if mode:  # a hole
                os.pwrite(fd, bytes(length), offset)
                self._log_file("write", fd, offset, bytes(length))
            else:
                fallocate.fallocate(fd, mode, offset, length)
                self._log_file("resize", fd, os.fstat(fd).st_size)

    def ftruncate(self, fd: int, size: int) -> None:
        with self._lock:
            os.ftruncate(fd, size)
            self._log_file("resize", fd, size)

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            os.fdatasync(fd)
            self._log_file("sync", fd)

    def fsync(self, fd: int) -> None:
        with self._lock:
            os.fsync(fd)
            if fd in self._folders:
                self.calls.append(("sync_folder", self._folders[fd]))
            self._log_file("sync", fd)

    def rename(self, old: Path, new: Path) -> None:
        with self._lock:
            os.rename(old, new)
            if self._below(old) is not None:
                self.calls.append(("rename", self._below(old), self._below(new)))

    def rename_with(self, flag: int, old: Path, new: Path) -> bool:
        with self._lock:
            if not renames.rename_with(flag, old, new):
                return False
            if self._below(old) is not None:
                name = "exchange" if flag == renames.EXCHANGE else "rename"
                self.calls.append((name, self._below(old), self._below(new)))
            return True

    def link(self, old: Path, new: Path) -> None:
        with self._lock:
            os.link(old, new)
            if self._below(old) is not None:
                self.calls.append(("link", self._below(old), self._below(new)))

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        with self._lock:
            os.mkdir(path, mode)
            self._log_name("make", path)

    def symlink(self, target: str, path: Path) -> None:
        with self._lock:
            os.symlink(target, path)
            self._log_name("make", path, target)

    def unlink(self, path: Path) -> None:
        with self._lock:
            os.unlink(path)
            self._log_name("remove", path)

    def rmdir(self, path: Path) -> None:
        with self._lock:
            os.rmdir(path)
            self._log_name("remove", path)

    def _log_name(self, name: str, path: Path, *args: Any) -> None:
        below = self._below(path)
        if below is not None:
            self.calls.append((name, below, *args))

    def rmtree(self, path: Path) -> None:
        for folder, names, leaves in os.walk(path, topdown=False):
            for name in leaves:
                self.unlink(Path(folder) / name)
            for name in names:
                self.rmdir(Path(folder) / name)
        self.rmdir(path)

    def disk_usage(self, path: Path) -> Any:
        return shutil.disk_usage(path)


@contextmanager
def recording(root: Path) -> Iterator[list[Call]]:
    """The calls that change something below ``root``, in their order, as ``Disk`` takes them."""
    recorder = _Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", recorder)
        patch.setattr(copying, "os", recorder)
        patch.setattr(ownership, "os", recorder)
        patch.setattr(files, "shutil", recorder)
        patch.setattr(files, "rename_with", recorder.rename_with)
        patch.setattr(files, "fallocate", recorder.fallocate)
        yield recorder.calls
