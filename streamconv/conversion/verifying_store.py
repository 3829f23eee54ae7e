"""Reads what was fetched again, against the digests that it was fetched with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..engine import run as runs
from ..engine.transfer import inventory
from ..engine.transfer.inventory import Stored
from ..engine.transfer.part import Part
from ..engine.transfer.store import Store, writable_root
from ..errors import BadInput, Interrupted, Stopped, WriteFailed
from ..file_names import PACK
from ..sources.frame_cache import FrameCache
from ..sources.hub.model import HubFile, HubModel
from ..sources.pack import PackFile

_KINDS = {64: "sha256", 40: "git-sha1"}


@dataclass(frozen=True)
class StoreDamage:
    """A file, or a range of one, that is not what was fetched.

    Attributes
    ----------
    path : the file
    name : what it is on the hub, ``org/model: FILE``
    start, stop : the bytes that are known to hold the damage
    reason : what is wrong with it
    """

    path: Path
    name: str
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.name}): bytes {self.start}..{self.stop} are damaged: {self.reason}"


@dataclass(frozen=True)
class VerifiedStore:
    """What ``verify_store`` found.

    Attributes
    ----------
    root : the store
    n_files, n_parts : files that are complete, and those that are not yet
    total_bytes : what was read
    damaged : in the order of the files
    """

    root: Path
    n_files: int
    n_parts: int
    total_bytes: int
    damaged: tuple[StoreDamage, ...]


def verify_store(
    reporter: runs.Reporter, *, root: Path | None = None, stop_after_s: float | None = None
) -> VerifiedStore:
    """Read all fetched files of a store against their digests, and of partial ones the ranges that are here; asks no network.

    What is right needs no reading again before it is used; a complete file that is damaged is fetched again when it is needed.

    Parameters
    ----------
    root : the store; None: that of this user

    Raises
    ------
    NoPermission : the store is not ours, or cannot be read
    Stopped, Interrupted : asked to stop
    """
    stop = runs.StopRequest(stop_after_s)
    if root is None:
        root, note = writable_root(Path())
        if note:
            reporter.message(f"note: {note}")
    homes = inventory.models(root)
    packs = [pack for home in homes for pack in inventory.others(home, PACK)]
    found = [s for home in homes for s in inventory.stored(home)]
    names = {home: _names(Store(root), home) for home in homes}
    damaged: list[StoreDamage] = []

    def looked(n_bytes: int, name: str) -> None:
        reporter.advance(n_bytes, name)
        if stop.is_due():
            where = f"{len(damaged)} damaged files were found so far"
            if stop.signum:
                raise Interrupted(stop.signum, f"stopped by {signal.Signals(stop.signum).name}: {where}")
            raise Stopped(f"stopped as requested: {where}", "Run the same command again to start over.")

    with stop.on_signals():
        reporter.start(sum(s.here for s in (*found, *packs)), 0)
        try:
            for each in found:
                name = names[each.home].get(each.key, each.home.name.replace("--", "/"))
                damaged += (_whole if each.is_whole else _partial)(each, name, looked)
            for each in packs:
                damaged += _packed(each, names[each.home].get(each.key, each.home.name.replace("--", "/")), looked)
        finally:
            reporter.finish()
    n_files = sum(s.is_whole for s in found)
    n_bytes = sum(s.here for s in (*found, *packs))
    return VerifiedStore(root, n_files + len(packs), len(found) - n_files, n_bytes, tuple(damaged))


def _whole(each: Stored, name: str, looked: Callable[[int, str], None]) -> list[StoreDamage]:
    kind, path = _KINDS[len(each.key)], name.rpartition(": ")[2]
    part = Part(each.home, HubFile(name, "", path, each.size, kind, each.key), 1 << 20, 1 << 20)
    if not part.whole:  # removed since it was listed
        return []
    try:
        digest = part.digest(looked)
        reason = f"the digest is {digest}, it was downloaded as {kind}:{each.key}" if digest != each.key else ""
    except WriteFailed as e:  # an I/O error is damage, too
        reason = e.message
    if reason:
        part.forget_record()
    return [StoreDamage(each.path, name, 0, each.size, reason)] if reason else []


def _packed(each: Stored, name: str, looked: Callable[[int, str], None]) -> list[StoreDamage]:
    reason = damage_of_pack(each.path, each.key, lambda n_bytes: looked(n_bytes, name))
    return [StoreDamage(each.path, name, 0, each.size, reason)] if reason else []


def damage_of_pack(path: Path, key: str, looked: Callable[[int], object]) -> str:
    """What is wrong with a packed file whose content should have the sha256 ``key``; "" where nothing is."""
    try:
        digest = PackFile(path, "pread", FrameCache()).digest(looked)
    except BadInput as e:
        return e.message
    return f"it holds a file with the sha256 {digest}" if digest != key else ""


def _partial(each: Stored, name: str, looked: Callable[[int, str], None]) -> list[StoreDamage]:
    reason = "they do not match the digests in the index; they are fetched again when the file is completed"
    return [StoreDamage(each.path, name, start, stop, reason) for start, stop in inventory.damaged_ranges(each, looked)]


def _names(store: Store, home: Path) -> dict[str, str]:
    """What the files are on the hub, by digest, as far as their listings are here."""
    found = {}
    for path in sorted((home / "listings").glob("*.json")):
        record = store.load(home.name, "listings", path.name)
        model = HubModel.from_json(record, "") if record else None
        for file in model.files.values() if model else ():
            found[file.key] = f"{file.repo}: {file.path}"
    return found
